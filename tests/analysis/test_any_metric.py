"""Any metric goes through the same code: a number of either sign, and one that some windows do not have."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from planted import N_CLASSES, margins, trend

from comparison.pairs import sources
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.regions import threshold
from shiftlens.analysis.summary import all_metrics
from shiftlens.errors import InputError
from shiftlens.narrative.comparing import compared
from shiftlens.stats import Estimate, Skipped
from shiftlens.tasks.classification import ACCURACY, LOSS
from shiftlens.tasks.task import Stored, Variable

SCORE = Variable("score", "float32", "px", "higher", "number")
COST = replace(SCORE, better="lower")
SOME = replace(SCORE, optional=True)
REACH = 9
D = np.arange(-REACH, REACH + 1.0)
MEAN = 3 + trend(D, D, edge=4, soft=1.0, centre=(1, 0)) + 0.3 * np.cos(np.pi * D)[None, :]
"""Above 0 everywhere, a plateau off the middle, with a ripple of period 2."""


def numbers(
    values: np.ndarray, metric: Variable = SCORE, controls: dict[str, SweepArrays] | None = None
) -> SweepArrays:
    reach = (values.shape[1] // 2, values.shape[2] // 2)
    axes = [np.arange(-r, r + 1) for r in reach]
    return SweepArrays(
        {metric.name: values.astype(np.float32)}, np.zeros(0, np.int64), axes[0], axes[1], task=Stored((metric,)),
        picture_size=(8, 8), strides=(2,), controls=controls or {},
    )  # fmt: skip


def drawn(seed: int, n: int, mean: np.ndarray = MEAN) -> np.ndarray:
    return margins(np.random.default_rng(seed), n, mean)


def with_controls(made: np.ndarray, metric: Variable, sign: int = 1, noise: np.ndarray | float = 0.0) -> SweepArrays:
    control = numbers(sign * (made[:, :, ::-1] + noise), metric)
    return numbers(sign * made, metric, {"occlusion": control, "flip": control, "canvas": control})


def estimates(value: object, path: str = "") -> dict[str, Estimate]:
    if isinstance(value, Estimate):
        return {path: value}
    if isinstance(value, tuple):
        parts = [(str(k), each) for k, each in enumerate(value)]
    elif is_dataclass(value) and not isinstance(value, SweepArrays | Variable):
        parts = [(each.name, getattr(value, each.name)) for each in fields(value)]
    else:
        return {}
    return {name: e for key, each in parts for name, e in estimates(each, f"{path}.{key}").items()}


TURNS = ("asymmetry", "aliasing", "mean", "profiles", "worst", "blank")
"""Estimates of the metric itself change their sign with it; costs, areas and places do not."""


def test_lower_is_better_of_the_negated_values():
    made, noise = drawn(1, 80), 0.1 * drawn(9, 80, 0 * MEAN)
    up, down = (all_metrics(with_controls(made, m, s, noise), n_resamples=100) for m, s in ((SCORE, 1), (COST, -1)))
    one, other = estimates(up), estimates(down)
    assert one.keys() == other.keys()
    assert {"px^2", "px"} <= {e.unit for e in one.values()}
    for name, a in one.items():
        sign = -1 if name.split(".")[1].startswith(TURNS) else 1
        b = other[name].scaled(sign, other[name].unit)
        assert (b.value, b.lo, b.hi) == pytest.approx((a.value, a.lo, a.hi), rel=1e-4, abs=1e-5), name
        assert b.p_value == pytest.approx(a.p_value, abs=1e-6), name
    assert [t.p_value for t in down.tests] == pytest.approx([t.p_value for t in up.tests], abs=1e-6)
    assert len(up.tests) >= 9
    assert up.asymmetry_x.stronger_side == down.asymmetry_x.stronger_side == "right"
    assert up.placement.effect == pytest.approx(down.placement.effect, abs=1e-5)
    assert [np.array_equal(a.region, b.region) for a, b in zip(up.retained, down.retained, strict=True)] == [True] * 3


def test_a_comparison_of_lower_is_better_of_the_negated_values():
    made = [drawn(1, 80), drawn(1, 80) + 0.3 + 0.2 * drawn(2, 80, 0 * MEAN)]
    both = [
        compared(sources([numbers(s * each, m) for each in made], image_size=(8, 8)), n_resamples=80, margin=0.3)["b"]
        for m, s in ((SCORE, 1), (COST, -1))
    ]
    for name in ("at-rest", "near", "everywhere", "worst"):
        up, down = (each.differences[name] for each in both)
        assert (up.verdict, down.verdict) == ("better", "better"), name
        assert down.estimate.value == pytest.approx(-up.estimate.value, rel=1e-4)
        assert up.estimate.unit == "px"
        assert up.holm_p == pytest.approx(down.holm_p)
    up, down = (each.map for each in both)
    assert up.better.sum() == down.better.sum() > 50
    assert not up.worse.any()
    assert isinstance(both[0].differences["agreement"], Skipped)
    for k in (0, 1):
        assert [each.as_good[k].lower for each in both] == pytest.approx([both[0].as_good[k].lower] * 2, rel=1e-4)
        assert all(each.as_good[k].holds for each in both)


def test_images_without_a_value_are_left_out():
    made, noise, gone = drawn(3, 60), 0.1 * drawn(9, 60, 0 * MEAN), np.arange(60) % 4 == 1
    holes = np.where(gone[:, None, None], np.nan, made)
    some = all_metrics(with_controls(holes, SOME, 1, noise), n_resamples=400)
    fewer = all_metrics(with_controls(made[~gone], SOME, 1, noise[~gone]), n_resamples=400)
    assert some.profile("score").map.n_each.tolist() == np.full(MEAN.shape, 45).tolist()
    one, other = estimates(some), estimates(fewer)
    # Images that are gone still take their draws of the bootstrap.
    exact = [name for name in one if name in other and "bootstrap" not in one[name].method and "reversal" not in name]
    exact = [name for name in exact if "emptying" not in name and "method" not in name]
    assert len(exact) >= 14, exact
    for name in exact:
        a, b = one[name], other[name]
        assert (a.value, a.lo, a.hi) == pytest.approx((b.value, b.lo, b.hi), rel=1e-4, abs=1e-6), name
        assert (a.p_value is None) == (b.p_value is None)
        assert a.p_value is None or a.p_value == pytest.approx(b.p_value, rel=1e-3), name
    for name in ("placement", "occlusion"):
        assert getattr(some, name).effect == pytest.approx(getattr(fewer, name).effect, abs=1e-5)
    for a, b in zip(some.retained, fewer.retained, strict=True):
        assert np.array_equal(a.region, b.region)
    a, b = some.profile("score").map, fewer.profile("score").map
    assert a.value == pytest.approx(b.value, rel=1e-5)
    assert a.lo == pytest.approx(b.lo, rel=1e-4)
    assert (a.hi - a.value).mean() == pytest.approx((b.hi - b.value).mean(), rel=1e-3)
    assert (a.band_hi - a.value).mean() == pytest.approx((b.band_hi - b.value).mean(), rel=0.15)


def test_windows_without_a_value_are_left_out_of_their_own_means():
    made = drawn(4, 50)
    made[7:30, 3, 5], made[:49, 2, 2], made[:, 0, 0] = np.nan, np.nan, np.nan
    found = all_metrics(numbers(made, SOME), n_resamples=60)
    cells = found.profile("score").map
    assert cells.n_each[3, 5] == 27
    assert cells.value[3, 5] == pytest.approx(np.nanmean(made[:, 3, 5]), rel=1e-5)
    assert np.isnan([cells.value[0, 0], cells.lo[2, 2], cells.band_hi[0, 0]]).all()
    assert found.mean.n == 50
    inside = ~found.sweep.blank
    assert found.mean.value == pytest.approx(np.nanmean(made[:, inside], axis=1).mean(), rel=1e-5)
    pair = np.flatnonzero((found.asymmetry_x.dys == -6) & (found.asymmetry_x.dxs == 4))[0]
    expected = np.nanmean(made[:, 3, 13] - made[:, 3, 5])
    assert found.asymmetry_x.effect[pair] == pytest.approx(expected, rel=1e-4)
    assert all(0 <= t.p_value <= 1 for t in found.tests)


def test_a_difference_that_never_varies_has_the_sign_test_s_p_value():
    made = np.full((12, 5, 5), 3.1)
    made[:, :, 3:] += 0.7
    found = all_metrics(numbers(made), n_resamples=20).asymmetry_x
    assert found.effect == pytest.approx(np.full(10, 0.7), rel=1e-6)
    assert found.p == pytest.approx(np.full(10, 2.0**-11))
    assert found.overall.p_value == pytest.approx(2.0**-11)


def test_a_number_that_must_be_there_and_is_not_is_refused():
    made = drawn(4, 30)
    made[3, 2, 2] = np.nan
    found = all_metrics(numbers(made), n_resamples=10)
    assert "a score that is not finite" in found.profile("score").map.why
    assert all("not finite" in each.why for each in found.retained)


@pytest.mark.parametrize("metric", [SCORE, COST])
def test_intervals_of_a_number_cover(metric):
    """200 draws of 60 images from 4,000 whose own values are the truth."""
    sign, rng = metric.sign, np.random.default_rng(5)
    d = np.arange(-5, 6.0)
    everything = drawn(6, 4000, 3 + trend(d, d, edge=3, soft=1.0))
    control = everything[:, ::-1] + 0.5 * drawn(7, 4000, np.zeros((11, 11)))

    def made(rows):
        moved, kept = (numbers(sign * each[rows], metric) for each in (everything, control))
        found = all_metrics(replace(moved, controls={"occlusion": kept}, strides=()), n_resamples=200)
        values = {k: (e.value, e.lo, e.hi) for k, e in estimates(found).items() if "reversals" not in k}
        cells, sides, cost = found.profile("score").map, found.asymmetry_x, found.placement
        values["cells"] = cells.value, cells.lo, cells.hi
        values["band cells"] = cells.value, cells.band_lo, cells.band_hi
        values["band sides"] = sides.effect, sides.lo, sides.hi
        values["band placement"] = cost.effect, cost.lo, cost.hi
        return values

    truth, held = made(slice(None)), {}
    for _ in range(200):
        for name, (_, lo, hi) in made(rng.integers(0, 4000, 60)).items():
            if name in truth:
                inside = (np.asarray(lo) <= truth[name][0]) & (truth[name][0] <= np.asarray(hi))
                held.setdefault(name, []).append(inside.all() if name.startswith("band") else inside.mean())
    shares = {name: np.mean(each) for name, each in held.items() if len(each) > 150}
    assert len(shares) >= 12
    # 200 draws of a true 95 % have a standard deviation of 1.5 points.
    assert {name: share for name, share in shares.items() if share < 0.9} == {}
    assert np.mean([*shares.values()]) > 0.94


def test_loss_is_measured_as_accuracy_is():
    rng = np.random.default_rng(2)
    margin = drawn(2, 60, trend(D, D, edge=4))
    labels = rng.integers(0, N_CLASSES, 60)
    prediction = np.where(margin > 0, labels[:, None, None], (labels[:, None, None] + 1) % N_CLASSES).astype(np.uint8)
    loss = np.logaddexp(0, -2 * margin).astype(np.float32)
    axes = np.arange(-REACH, REACH + 1)
    made = SweepArrays({"prediction": prediction, "loss": loss}, labels, axes, axes, picture_size=(64, 64))
    by_loss = all_metrics(made, metric="loss", n_resamples=60)
    assert by_loss.metric == LOSS
    assert by_loss.asymmetry_x.overall.unit == by_loss.worst_of_radius.unit == "nats"
    assert by_loss.worst_of_radius.value == pytest.approx(
        loss[:, np.hypot(axes[:, None], axes[None, :]) <= 4].max(axis=1).mean(), rel=1e-5
    )
    region = by_loss.retained[2].region
    mean = loss.astype(float).mean(axis=0)
    assert (mean[region] <= 1.5 * mean[REACH, REACH] * (1 + 1e-6)).all()
    assert by_loss.profile("accuracy").map.value == pytest.approx(made.correct.mean(axis=0))
    assert made.values().metric == ACCURACY
    with pytest.raises(InputError, match="metric"):
        made.values("acuracy")


@pytest.mark.parametrize(("at_origin", "lowest"), [(0.8, 0.72), (-2.0, -2.2), (0.0, 0.0)])
def test_a_retained_value_may_be_worse_by_a_tenth_on_either_side_of_zero(at_origin: float, lowest: float) -> None:
    assert float(threshold(np.float64(at_origin), 0.9)) == pytest.approx(lowest)
