"""Every metric against the slow loops of reference_metrics.py, on a small sweep with both controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from coverage_draws import population
from planted import arrays, margins, trend

import reference_metrics as ref
from shiftlens.analysis.aliasing import aliasing
from shiftlens.analysis.estimated_maps import estimated_map
from shiftlens.analysis.irregularity import irregularity, rays
from shiftlens.analysis.regions import LEVELS, connected_region
from shiftlens.analysis.summary import all_metrics
from shiftlens.stats import Skipped, resample_weights

REACH = 5
D = np.arange(-REACH, REACH + 1.0)


@pytest.fixture(scope="module")
def sweep():
    return population(3, 24, trend(D, D, edge=3.5, soft=1.0) + 0.15 * np.sin(D)[None, :])


@pytest.fixture(scope="module")
def metrics(sweep):
    return all_metrics(sweep, n_resamples=60, radius=3)


@pytest.fixture(scope="module")
def axes(sweep):
    return sweep.dys.tolist(), sweep.dxs.tolist()


def test_accuracy_map_and_intervals(sweep, metrics):
    expected, made = ref.accuracy(sweep.correct), metrics.profile("accuracy").map
    assert made.value == pytest.approx(np.array(expected))
    for y, x in [(0, 0), (5, 5), (2, 9)]:
        k = round(expected[y][x] * 24)
        assert (made.lo[y, x], made.hi[y, x]) == pytest.approx(ref.wilson(k, 24, ref.Z))
    assert (made.band_lo <= made.lo).all()
    assert (made.band_hi >= made.hi).all()
    assert metrics.profile("accuracy").at_origin.value == expected[REACH][REACH]


def test_loss_map_and_intervals(sweep, metrics):
    made = metrics.profile("loss").map
    for y, x in [(0, 0), (5, 5), (2, 9)]:
        expected = ref.t_interval(np.asarray(sweep.loss)[:, y, x].astype(float).tolist())
        cell = (
            made.value[y, x],
            made.lo[y, x],
            made.hi[y, x],
        )
        assert cell == pytest.approx((expected[0], max(expected[1], 0), expected[2]), rel=1e-5)
    origin = ref.t_interval(np.asarray(sweep.loss)[:, REACH, REACH].astype(float).tolist())
    assert metrics.profile("loss").at_origin.value == pytest.approx(origin[0], rel=1e-6)
    assert metrics.profile("loss").at_origin.hi == pytest.approx(origin[2], rel=1e-6)


def test_bootstrap_replicates_are_maps_of_repeated_images(sweep):
    weights = resample_weights(sweep.positions, 15)
    _, replicates = estimated_map(sweep.values("accuracy"), weights)
    assert replicates.resampled == pytest.approx(ref.resampled(sweep.correct.reshape(24, -1), weights), abs=1e-6)
    _, losses = estimated_map(sweep.values("loss"), weights)
    assert losses.resampled == pytest.approx(ref.resampled(np.asarray(sweep.loss).reshape(24, -1), weights), rel=1e-4)


def test_class_maps(sweep, metrics):
    for k in np.unique(sweep.labels):
        assert metrics.per_class.accuracy(k) == pytest.approx(
            np.array(ref.class_accuracy(sweep.correct, sweep.labels, k))
        )
    assert metrics.per_class.n.tolist() == [int((sweep.labels == k).sum()) for k in range(5)]


@pytest.mark.parametrize("level", LEVELS)
def test_retained_region_is_the_flood(sweep, metrics, level):
    found = metrics.retained[LEVELS.index(level)]
    region = ref.retained(sweep.correct, (REACH, REACH), level)
    assert {(int(y), int(x)) for y, x in np.argwhere(found.region)} == region
    assert found.area.value == len(region)
    assert found.radius.value == pytest.approx((len(region) / np.pi) ** 0.5)
    assert found.area.lo <= found.area.value <= found.area.hi
    assert found.at_least == any(0 in cell or 2 * REACH in cell for cell in region)


def test_area_counts_the_step_squared(sweep):
    wide = replace(sweep, dys=sweep.dys * 3, dxs=sweep.dxs * 3, controls={})
    one, three = (all_metrics(s, n_resamples=40).retained[2] for s in (replace(sweep, controls={}), wide))
    assert three.area.value == 9 * one.area.value
    assert three.radius.hi == pytest.approx(3 * one.radius.hi)


def test_a_cell_at_the_level_belongs_to_the_region():
    accuracy = np.full((3, 3), 0.1)
    accuracy[1, 1], accuracy[1, 2] = 0.6, 0.6 * 0.95
    assert connected_region(accuracy, 0.95, (1, 1)).sum() == 2


def test_corners_do_not_connect():
    accuracy = np.eye(3)
    assert connected_region(accuracy, 0.9, (1, 1)).sum() == 1


def test_centre(sweep, metrics, axes):
    x, y = ref.centroid(sweep.correct, *axes, metrics.centre.level)
    assert (metrics.centre.x.value, metrics.centre.y.value) == pytest.approx((x, y))


def test_a_grid_with_unequal_axes_keeps_them_apart(sweep):
    """On a square grid a centroid or a cell with dx for dy passes unseen."""
    cut = replace(
        sweep,
        variables={name: cells[:, 2:9] for name, cells in sweep.variables.items()},
        dys=sweep.dys[2:9] * 2,
        picture_size=(64, 64),
        controls={},
    )
    m = all_metrics(cut, n_resamples=30, radius=4)
    dys, dxs = cut.dys.tolist(), cut.dxs.tolist()
    assert (m.centre.x.value, m.centre.y.value) == pytest.approx(ref.centroid(cut.correct, dys, dxs, m.centre.level))
    assert m.centre.x.value != pytest.approx(m.centre.y.value, abs=1e-3)
    assert m.worst_of_radius.value == pytest.approx(ref.worst(cut.correct, dys, dxs, 4))
    assert m.retained[2].area.value == 2 * len(ref.retained(cut.correct, (3, REACH), 0.5))
    effects, _, _ = ref.asymmetry_x(cut.correct, dys, dxs)
    shifts = list(zip(m.asymmetry_x.dys.tolist(), m.asymmetry_x.dxs.tolist(), strict=True))
    assert dict(zip(shifts, m.asymmetry_x.effect.tolist(), strict=True)) == pytest.approx(effects)
    # A frame of a grid with unequal steps is no square: there is none, and no ray leaves the grid.
    assert {ray.name for ray in rays(cut)} >= {"right", "up", "down left"}
    assert "frame" not in {ray.name for ray in rays(cut)}
    for ray in rays(cut):
        assert [(int(cut.dxs[c[0] % 11]), int(cut.dys[c[0] // 11])) for c in ray.cells] == [
            tuple(s) for s in ray.shifts
        ]


def test_worst_of_radius(sweep, metrics, axes):
    assert metrics.worst_of_radius.value == pytest.approx(ref.worst(sweep.correct, *axes, 3))


def test_asymmetry(sweep, metrics, axes):
    effects, p_values, images = ref.asymmetry_x(sweep.correct, *axes)
    found = metrics.asymmetry_x
    shifts = list(zip(found.dys.tolist(), found.dxs.tolist(), strict=True))
    assert sorted(shifts) == sorted(effects)
    assert found.effect == pytest.approx(np.array([effects[s] for s in shifts]))
    assert found.p == pytest.approx(np.array([p_values[s] for s in shifts]))
    expected = ref.t_interval([100 * v for v in images])
    assert (found.overall.value, found.overall.lo, found.overall.hi) == pytest.approx(expected)


def test_asymmetry_without_the_data(sweep, metrics, axes):
    effects, _, images = ref.asymmetry_x(sweep.correct, *axes, flipped=sweep.controls["flip"].correct)
    found = metrics.asymmetry_x_model
    shifts = list(zip(found.dys.tolist(), found.dxs.tolist(), strict=True))
    assert found.effect == pytest.approx(np.array([effects[s] for s in shifts]))
    expected = ref.t_interval([100 * v for v in images])
    assert (found.overall.value, found.overall.lo, found.overall.hi) == pytest.approx(expected)
    assert found.without_data


@pytest.mark.parametrize("quantity", ["accuracy", "loss"])
def test_reversals(quantity):
    r = np.hypot(D[:, None], D[None, :])
    sweep = population(5, 24, 0.8 - 1.3 * np.exp(-(((r - 2.5) / 0.8) ** 2)))
    weights = resample_weights(sweep.positions, 60)
    _, replicates = estimated_map(sweep.values(quantity), weights)
    sign, floor = (1, 1 / 24) if quantity == "accuracy" else (-1, 0.0)
    cells = [[c.tolist() for c in ray.cells] for ray in rays(sweep)]
    expected = ref.reversals(replicates.value, replicates.resampled, cells, 24, sign, floor)
    found = irregularity(replicates, sweep)
    assert found.p_value == pytest.approx(expected)
    assert 0 < found.p_value < 1
    assert found.n_contrasts == 9 * 15


@pytest.mark.parametrize(("n", "there", "least"), [(2, None, 0.5), (40, None, 0.0), (40, 2, 0.5), (40, 40, 0.0)])
def test_no_reversal_is_surer_than_its_images_allow(n, there, least):
    r = np.hypot(D[:, None], D[None, :])
    sweep = population(5, n, 0.8 - 1.3 * np.exp(-(((r - 2.5) / 0.8) ** 2)))
    _, replicates = estimated_map(sweep.values("loss"), resample_weights(sweep.positions, 200))
    # Images that agree have no spread: a bootstrap alone would be sure of two of them.
    value, noise = replicates.value, 1e-3 * np.random.default_rng(0).normal(size=replicates.resampled.shape)
    counts = None if there is None else np.full(len(value), there)
    p = irregularity(replace(replicates, resampled=value + noise, counts=counts), sweep).p_value
    assert p >= least
    assert least or p < 0.02


@pytest.mark.parametrize("stride", [2, 4, 3])
def test_ripple(stride):
    rng = np.random.default_rng(0)
    d = np.arange(-16, 17.0)
    made = arrays(margins(rng, 20, trend(d, d, edge=12) + 0.2 * np.cos(2 * np.pi * d / 4 - 0.5)[None, :]), rng)
    found = aliasing(replace(made, strides=(stride,)).values())[0]
    cosine, sine = ref.ripple(made.correct, made.dxs.tolist(), stride)
    assert found.ripple.value == pytest.approx(cosine)
    if stride == 2:
        assert isinstance(found.quadrature, Skipped)
    else:
        assert found.quadrature.value == pytest.approx(sine)


def test_consistency(sweep, metrics):
    same = np.array(ref.agreement(np.asarray(sweep.prediction), (REACH, REACH)))
    found = metrics.consistency
    assert found.agreement.value == pytest.approx(same.mean(axis=0))
    others = (same.reshape(24, -1).sum(axis=1) - 1) / (same[0].size - 1)
    assert found.mean_agreement.value == pytest.approx(others.mean())
    pairs = ref.pairwise(np.asarray(sweep.prediction))
    assert (found.pairwise.value, found.pairwise.lo) == pytest.approx(ref.t_interval(pairs)[:2])
    right = sweep.correct[:, REACH, REACH]
    assert found.flip_rate.value == pytest.approx(1 - others[right].mean())
    assert found.right_pairwise.value == pytest.approx(np.mean(np.array(pairs)[right]))


def test_occlusion_and_placement(sweep, metrics):
    moved, kept = np.array(ref.accuracy(sweep.correct)), np.array(ref.accuracy(sweep.controls["occlusion"].correct))
    assert metrics.occlusion.effect == pytest.approx(100 * (moved[REACH, REACH] - kept))
    assert metrics.placement.effect == pytest.approx(100 * (kept - moved))
    off = np.ones_like(moved, dtype=bool)
    off[REACH, REACH] = False
    assert metrics.placement.overall.value == pytest.approx(100 * (kept - moved)[off].mean())
    assert (metrics.placement.lo <= metrics.placement.effect).all()
    assert (metrics.placement.effect <= metrics.placement.hi).all()


def test_blank_limit(sweep):
    small = replace(sweep, picture_size=(5, 4), controls={})
    blank = np.array([[abs(dy) >= 5 or abs(dx) >= 4 for dx in sweep.dxs] for dy in sweep.dys])
    found = all_metrics(small, n_resamples=20)
    assert found.blank.n_shifts == blank.sum()
    there = np.asarray(sweep.prediction)[:, blank].ravel().tolist()
    top = max(sorted(set(there)), key=there.count)
    assert found.blank.predicted == f"class {top}"
    assert found.blank.share == pytest.approx(there.count(top) / len(there))
    assert found.blank.metrics["loss"].value == pytest.approx(np.asarray(sweep.loss)[:, blank].mean(), rel=1e-6)
    assert found.blank.metrics["accuracy"].value == pytest.approx(sweep.correct[:, blank].mean())
    pairs = set(zip(found.asymmetry_x.dys.tolist(), found.asymmetry_x.dxs.tolist(), strict=True))
    assert pairs == {(dy, dx) for dy in range(-4, 5) for dx in range(1, 4)}
    inside = sweep.correct[:, ~blank].mean()
    assert found.mean.value == pytest.approx(inside)


def test_padding_effect(sweep):
    control = sweep.controls["occlusion"]  # any paired sweep will do
    found = all_metrics(replace(sweep, controls={"canvas": control}), n_resamples=20).padding
    moved, kept = np.array(ref.accuracy(sweep.correct)), np.array(ref.accuracy(control.correct))
    assert found.effect.effect == pytest.approx(100 * (kept - moved))
    assert found.effect.overall.value == pytest.approx(100 * (kept - moved).mean())
    off = np.ones_like(moved, dtype=bool)
    off[REACH, REACH] = False
    for made, where in ((found.fall, moved), (found.fall_without, kept)):
        assert made.value == pytest.approx(100 * (where[REACH, REACH] - where[off].mean()))
        assert made.lo < made.value < made.hi
    assert found.fall_of_padding.value == pytest.approx(found.fall.value - found.fall_without.value)
    per_image = [
        (a[REACH, REACH] - a[off].mean()) - (b[REACH, REACH] - b[off].mean())
        for a, b in zip(sweep.correct.astype(float), control.correct.astype(float), strict=True)
    ]
    wanted = 100 * np.array(ref.t_interval(per_image)[:2])
    assert (found.fall_of_padding.value, found.fall_of_padding.lo) == pytest.approx(wanted)
