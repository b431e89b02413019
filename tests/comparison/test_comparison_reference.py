"""Every number of a comparison against plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from comparison import slow
from comparison.pairs import pair_of, plateau, sources
from shiftlens.analysis import arms
from shiftlens.analysis import arrays as metric_arrays
from shiftlens.analysis.arm_scores import score
from shiftlens.analysis.arms import align
from shiftlens.analysis.estimated_maps import estimated_map
from shiftlens.analysis.regions import retained
from shiftlens.narrative.comparing import compared
from shiftlens.stats import Skipped, resample_weights

REACH, N = 10, 60
SIZE = (7, 6)
"""So that some shifts leave nothing, also some within 8 px."""


@pytest.fixture(scope="module")
def made():
    means = [plateau(REACH, edge=6), plateau(REACH, edge=7.5, centre=(1.5, 0)), plateau(REACH, edge=6) - 0.2]
    return [replace(each, picture_size=SIZE) for each in pair_of(np.random.default_rng(3), N, means)]


@pytest.fixture(scope="module")
def found(made):
    return compared(sources(made, image_size=SIZE), baseline=1, n_resamples=150)


@pytest.fixture(scope="module")
def truth(made):
    """Per image: every quantity of every arm, by loops."""
    dys, dxs = made[0].dys.tolist(), made[0].dxs.tolist()
    origin = (dys.index(0), dxs.index(0))
    near, everywhere, close = (slow.kept(dys, dxs, SIZE, r) for r in (8, np.inf, 4))
    assert len(everywhere) < len(dys) * len(dxs)
    out = []
    for arm in made:
        right = np.asarray(arm.prediction) == arm.labels[:, None, None]
        out.append(
            {
                "right": right,
                "at-rest": [bool(image[origin]) for image in right],
                "near": slow.shares(right, near),
                "everywhere": slow.shares(right, everywhere),
                "worst": slow.worst(right, close),
                "side-x": slow.sides(right, dys, dxs, SIZE, across=True),
                "side-y": slow.sides(right, dys, dxs, SIZE, across=False),
                "agreement": slow.agreement(np.asarray(arm.prediction), near, origin),
                "area": slow.retained_area(right, origin, 1, 1),
            }
        )
    return out


def pair(estimate):
    return estimate.value, estimate.lo, estimate.hi


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("quantity", ["near", "everywhere", "agreement"])
def test_means_of_an_image(found, truth, which, quantity):
    expected, _ = slow.t_difference(truth[which][quantity], truth[1][quantity])
    assert pair(found["ac"[which // 2]].differences[quantity].estimate) == pytest.approx(expected)


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("quantity", ["at-rest", "worst"])
def test_shares_of_images(found, truth, which, quantity):
    expected = slow.share_difference(truth[which][quantity], truth[1][quantity], norm.ppf(0.975))
    assert pair(found["ac"[which // 2]].differences[quantity].estimate) == pytest.approx(expected)


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("quantity", ["side-x", "side-y"])
def test_sizes_of_asymmetries(found, truth, which, quantity):
    a, b = truth[which][quantity], truth[1][quantity]
    signed = [[v * (1 if np.mean(values) >= 0 else -1) for v in values] for values in (a, b)]
    expected, _ = slow.t_difference(*signed)
    made = found["ac"[which // 2]].differences[quantity]
    assert pair(made.estimate) == pytest.approx(expected)
    assert made.estimate.value == pytest.approx(100 * (abs(np.mean(a)) - abs(np.mean(b))))
    tests = [slow.t_difference(a, [sign * v for v in b])[1] for sign in (1, -1)]
    assert made.estimate.p_value == pytest.approx(max(tests))


def test_the_table(found, truth):
    for row, arm in zip(found.rows, truth, strict=True):
        assert row.unshifted.value == pytest.approx(np.mean(arm["at-rest"]))
        assert row.near.value == pytest.approx(np.mean(arm["near"]))
        assert row.worst_of_radius.value == pytest.approx(np.mean(arm["worst"]))
        assert row.retained_area.value == pytest.approx(arm["area"])
        assert row.retained_radius.value == pytest.approx(np.sqrt(arm["area"] / np.pi))
        assert row.asymmetry_lr.value == pytest.approx(100 * np.mean(arm["side-x"]))
        assert row.asymmetry_ud.value == pytest.approx(100 * np.mean(arm["side-y"]))
        assert row.difference.value == pytest.approx(100 * np.mean(arm["near"]) - 100 * np.mean(truth[1]["near"]))
    assert pair(found.rows[1].difference) == (0, 0, 0)


def test_the_table_agrees_with_the_metrics_of_a_single_sweep(made, found):
    weights = resample_weights(np.arange(N), 150)
    for arm, row in zip(made, found.rows, strict=True):
        assert arm.values().per_image((arm.distance <= 8) & ~arm.blank).mean() == pytest.approx(row.near.value)
        alone = retained(estimated_map(arm.values(), weights)[1], arm, 0.95)
        assert not isinstance(alone, Skipped)
        assert pair(alone.area) == pair(row.retained_area)


@pytest.mark.parametrize("which", [0, 2])
def test_the_map_of_differences(made, found, truth, which):
    compared_map = found["ac"[which // 2]].map
    right, base = truth[which]["right"], truth[1]["right"]
    p = []
    for y in range(right.shape[1]):
        for x in range(right.shape[2]):
            expected = slow.share_difference(list(right[:, y, x]), list(base[:, y, x]), norm.ppf(0.975))
            got = (compared_map.value[y, x], compared_map.lo[y, x], compared_map.hi[y, x])
            assert got == pytest.approx(expected), (y, x)
            blank = abs(made[0].dys[y]) >= SIZE[0] or abs(made[0].dxs[x]) >= SIZE[1]
            assert compared_map.tested[y, x] == (not blank)
            if not blank:
                p.append(slow.mcnemar(list(right[:, y, x]), list(base[:, y, x])))
    assert compared_map.p_value == pytest.approx(slow.simes(p))
    assert not (compared_map.better | compared_map.worse)[~compared_map.tested].any()


def test_the_band_holds_for_all_shifts_of_all_arms(found, truth):
    """Critical value by loops over bootstrap samples and shifts, then the interval with it."""
    weights = resample_weights(np.arange(N), 150).astype(int)
    tested = np.argwhere(found.against[0].map.tested)
    z = norm.ppf(0.975)
    cells = {}
    for which in (0, 2):
        for y, x in tested:
            a, b = truth[which]["right"][:, y, x], truth[1]["right"][:, y, x]
            value, lo, hi = slow.share_difference(list(a), list(b), z)
            cells[which, y, x] = (value / 100, (hi - lo) / 100 / (2 * z), a.astype(int) - b.astype(int))
    largest = [max(abs((w @ d) / N - value) / scale for value, scale, d in cells.values()) for w in weights]
    critical = np.quantile(largest, 0.95)
    assert z < critical < norm.ppf(1 - 0.025 / len(cells))
    for which in (0, 2):
        found_map = found["ac"[which // 2]].map
        for y, x in tested:
            a, b = truth[which]["right"][:, y, x], truth[1]["right"][:, y, x]
            _, lo, hi = slow.share_difference(list(a), list(b), critical)
            assert found_map.band_lo[y, x] == pytest.approx(lo, abs=1e-4)
            assert found_map.band_hi[y, x] == pytest.approx(hi, abs=1e-4)
            assert found_map.better[y, x] == (lo > 0)
            assert found_map.worse[y, x] == (hi < 0)


def test_one_correction_for_all_tests(found, truth):
    own = {}
    for each in found.against:
        for quantity, made in each.differences.items():
            own[each.which, quantity] = made.estimate.p_value
        own[each.which, "map"] = each.map.p_value
        a, b = truth[each.which], truth[1]
        for quantity in ("at-rest", "worst"):
            assert own[each.which, quantity] == pytest.approx(slow.mcnemar(a[quantity], b[quantity]))
        for quantity in ("near", "everywhere", "agreement"):
            assert own[each.which, quantity] == pytest.approx(slow.t_difference(a[quantity], b[quantity])[1])
    assert found.n_tests == len(own) == 18
    corrected = slow.holm(own)
    for each in found.against:
        assert each.map.holm_p == pytest.approx(corrected[each.which, "map"])
        for quantity, made in each.differences.items():
            assert made.holm_p == pytest.approx(corrected[each.which, quantity])
            assert (made.verdict == "undecided") == (made.holm_p > 0.02 or made.estimate.value == 0)
            low, high = made.estimate.lo, made.estimate.hi
            by_hand = (norm.ppf(1 - 0.01 / 18) + norm.ppf(0.8)) * (high - low) / 2 / norm.ppf(0.975)
            assert made.detectable == pytest.approx(by_hand)


def test_the_difference_of_retained_areas():
    means = [plateau(REACH, edge=6), plateau(REACH, edge=7.5)]
    made = pair_of(np.random.default_rng(4), N, means, shared=0.98)
    aligned = align(sources(made), 1)
    one, base = (score(aligned, k, n_resamples=200) for k in (0, 1))
    difference = compared(sources(made), 1, n_resamples=200)["a"].differences["retained"].estimate
    origin = (REACH, REACH)
    weights = resample_weights(np.arange(N), 200).astype(int)
    areas = []
    for scores in (one, base):
        counts = [np.tensordot(w, scores.cells, 1) for w in weights]
        areas.append([len(slow.flood(c >= 0.95 * c[origin] - 1e-9, origin)) for c in counts])
    rho = max(np.corrcoef(*areas)[0, 1], 0)
    assert 0 < rho < 1
    a, b = one.retained.area, base.retained.area
    below, above = (a.value - a.lo, b.hi - b.value), (a.hi - a.value, b.value - b.lo)
    lengths = [np.sqrt(p * p + q * q - 2 * rho * p * q) for p, q in (below, above)]
    assert difference.value == a.value - b.value < 0
    assert difference.lo == pytest.approx(difference.value - lengths[0])
    assert difference.hi == pytest.approx(difference.value + lengths[1])
    z = norm.ppf(0.975) * abs(difference.value) / lengths[1]
    assert difference.p_value == pytest.approx(2 * norm.sf(z))


@pytest.mark.parametrize("quantity", ["at-rest", "near"])
def test_non_inferiority(made, truth, quantity):
    found = compared(sources(made, image_size=SIZE), 1, margin=2.5, n_resamples=2)
    k = ("at-rest", "near").index(quantity)
    z = norm.ppf(1 - 0.025 / 2)
    for each in found.against:
        one = each.as_good[k]
        a, b = truth[each.which][quantity], truth[1][quantity]
        if quantity == "at-rest":
            _, lower, upper = slow.share_difference(a, b, z)
        else:
            d = [100 * (x - y) for x, y in zip(a, b, strict=True)]
            half = slow.sps.t.ppf(1 - 0.025 / 2, N - 1) * np.std(d, ddof=1) / np.sqrt(N)
            lower, upper = np.mean(d) - half, np.mean(d) + half
        assert one.lower == pytest.approx(lower)
        assert one.holds == (lower > -2.5)
        # With that many images, zero true difference and the same spread, the lower end is above in 80 % of samples.
        se = (upper - lower) / 2 / z * np.sqrt(N / one.n_needed)
        assert norm.cdf((2.5 - z * se) / se) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("cells", [1, 500, 5000])
def test_chunks_change_nothing(made, found, cells, monkeypatch):
    monkeypatch.setattr(metric_arrays, "CELLS_PER_CHUNK", cells)
    again = compared(sources(made, image_size=SIZE), baseline=1, n_resamples=150)
    assert again.to_dict() == found.to_dict()


def test_answers_are_kept_as_bits(made, truth):
    aligned = align(sources(made, image_size=SIZE), 1)
    for arm, expected in zip(aligned.arms, truth, strict=True):
        assert arm.cells.bits.nbytes == N * -(-(21 * 21) // 8)
        assert np.array_equal(arm.of(), expected["right"])
        chosen = np.arange(N) % 3 == 1
        assert np.array_equal(arm.of(chosen), expected["right"][chosen])
        assert np.array_equal(arm.cells[slice(5, 9)], expected["right"][5:9])
    assert arms.NEAR == 8
