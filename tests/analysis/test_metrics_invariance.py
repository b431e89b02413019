"""The order of images, the chunks and the point of view change nothing but what they should."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from coverage_draws import population, rows
from planted import trend

import shiftlens.analysis.arrays as arrays_room
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.summary import all_metrics
from shiftlens.stats import Skipped

D = np.arange(-9, 10.0)


@pytest.fixture(scope="module")
def sweep():
    tilted = trend(D, D, edge=5, soft=1.0, centre=(1.0, 0.0)) + 0.1 * np.cos(np.pi * D)[None, :] - 0.02 * D[:, None]
    return population(7, 60, tilted)


@pytest.fixture(scope="module")
def metrics(sweep):
    return all_metrics(sweep, n_resamples=80)


def leaves(value, path=""):
    """Every number of a result by its path, the sweep itself left out."""
    if isinstance(value, SweepArrays):
        return
    if is_dataclass(value):
        for each in fields(value):
            yield from leaves(getattr(value, each.name), f"{path}.{each.name}")
    elif isinstance(value, tuple):
        for k, each in enumerate(value):
            yield from leaves(each, f"{path}[{k}]")
    else:
        yield path, value


def same(one, other):
    first, second = dict(leaves(one)), dict(leaves(other))
    assert first.keys() == second.keys()
    for path, value in first.items():
        if isinstance(value, np.ndarray | float | int):
            assert np.asarray(second[path]) == pytest.approx(np.asarray(value), rel=1e-4, abs=1e-6), path
        else:
            assert second[path] == value, path


def in_order(sweep, order):
    out = rows(sweep, order)
    controls = {name: replace(control, index=order) for name, control in out.controls.items()}
    return replace(out, index=order, controls=controls)


def test_order_of_images_changes_nothing(sweep, metrics):
    order = np.random.default_rng(0).permutation(60)
    same(metrics, all_metrics(in_order(sweep, order), n_resamples=80))


def test_a_control_in_another_order_is_matched(sweep, metrics):
    order = np.random.default_rng(1).permutation(60)
    controls = {name: replace(rows(c, order), index=order) for name, c in sweep.controls.items()}
    same(metrics, all_metrics(replace(sweep, controls=controls), n_resamples=80))


@pytest.mark.parametrize("n_cells", [1, 7 * 19 * 19])
def test_chunks_change_nothing(sweep, metrics, monkeypatch, n_cells):
    monkeypatch.setattr(arrays_room, "CELLS_PER_CHUNK", n_cells)
    same(metrics, all_metrics(replace(sweep), n_resamples=80))


def seen(sweep, turn):
    """The same measurement with its maps turned."""
    return replace(
        sweep,
        variables={name: np.ascontiguousarray(turn(np.asarray(cells))) for name, cells in sweep.variables.items()},
        controls={name: seen(control, turn) for name, control in sweep.controls.items()},
    )


def test_a_mirrored_map_gives_mirrored_numbers(sweep, metrics):
    turned = all_metrics(seen(sweep, lambda m: m[:, :, ::-1]), n_resamples=80)
    assert turned.asymmetry_x.overall.value == pytest.approx(-metrics.asymmetry_x.overall.value)
    assert turned.asymmetry_x.overall.lo == pytest.approx(-metrics.asymmetry_x.overall.hi)
    assert turned.asymmetry_x_model.overall.value == pytest.approx(-metrics.asymmetry_x_model.overall.value)
    assert turned.asymmetry_x.effect == pytest.approx(-metrics.asymmetry_x.effect)
    assert turned.asymmetry_x.p == pytest.approx(metrics.asymmetry_x.p)
    assert turned.asymmetry_y.overall.value == pytest.approx(metrics.asymmetry_y.overall.value)
    assert {metrics.asymmetry_x.stronger_side, turned.asymmetry_x.stronger_side} == {"right", "left"}
    assert turned.centre.x.value == pytest.approx(-metrics.centre.x.value, abs=1e-9)
    assert turned.centre.y.value == pytest.approx(metrics.centre.y.value, abs=1e-9)
    assert [r.area for r in turned.retained] == [r.area for r in metrics.retained]
    assert turned.worst_of_radius == metrics.worst_of_radius
    assert turned.profile("accuracy").irregular.p_value == metrics.profile("accuracy").irregular.p_value
    assert turned.profile("accuracy").map.band_lo[:, ::-1] == pytest.approx(metrics.profile("accuracy").map.band_lo)
    for one, other in zip(metrics.aliasing, turned.aliasing, strict=True):
        if isinstance(one, Skipped):
            assert other == one
            continue
        assert other.ripple.value == pytest.approx(one.ripple.value, abs=1e-9)
        assert other.p_value == pytest.approx(one.p_value)
    assert {t.name: t.holm_p for t in turned.tests} == pytest.approx(
        {t.name: t.holm_p for t in metrics.tests}, abs=1e-9
    )


def test_swapping_dx_and_dy_swaps_the_axes(sweep, metrics):
    turned = all_metrics(seen(sweep, lambda m: m.transpose(0, 2, 1)), n_resamples=80)
    assert turned.asymmetry_y.overall == metrics.asymmetry_x.overall
    assert turned.asymmetry_x.overall == metrics.asymmetry_y.overall
    sides = {"right": "down", "left": "up"}
    assert turned.asymmetry_y.stronger_side == sides[metrics.asymmetry_x.stronger_side]
    assert turned.asymmetry_y.p.min() == metrics.asymmetry_x.p.min()
    assert turned.centre.y.value == pytest.approx(metrics.centre.x.value, abs=1e-9)
    assert pytest.approx(metrics.occlusion.effect) == turned.occlusion.effect.T
    ripples = {(a.axis, a.stride): a.ripple.value for a in metrics.aliasing if not isinstance(a, Skipped)}
    swapped = {
        ("y" if a.axis == "x" else "x", a.stride): a.ripple.value for a in turned.aliasing if not isinstance(a, Skipped)
    }
    assert len(ripples) == 2
    assert swapped == pytest.approx(ripples, abs=1e-9)
