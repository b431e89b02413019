"""Rates by the place in the frame, and the swing of objects, on sweeps whose numbers are known by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import shiftlens as sl
from shiftlens.analysis.object_curves import object_swing
from shiftlens.analysis.places import places
from shiftlens.shifts import ShiftGrid
from shiftlens.stats import Estimate, Skipped
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.detection import Detection
from shiftlens.tasks.segmentation import Segmentation

H, W = 16, 20


def sweep_of(task: Any, **arrays: np.ndarray) -> Any:
    return SimpleNamespace(
        header=SimpleNamespace(task=task),
        dataset=xr.Dataset({name: (("chunk", "y", "x"), values) for name, values in arrays.items()}),
    )


def test_the_border_is_held_against_the_interior() -> None:
    draw = np.random.default_rng(0)
    seen = np.full((8, H, W), 50.0)
    rate = np.full((H, W), 0.1)
    rate[:4], rate[-4:], rate[:, :4], rate[:, -4:] = 0.5, 0.5, 0.5, 0.5
    changed = draw.binomial(50, np.broadcast_to(rate, seen.shape)).astype(float)
    found = places(sweep_of(Segmentation(), changed=changed, seen=seen))
    assert not isinstance(found, Skipped)
    assert found.border == 4
    np.testing.assert_allclose(found.map, changed.sum(0) / 400)
    assert found.near == pytest.approx(changed[:, rate == 0.5].sum() / seen[:, rate == 0.5].sum())
    assert found.inside == pytest.approx(changed[:, rate == 0.1].sum() / seen[:, rate == 0.1].sum())
    assert isinstance(found.difference, Estimate)
    assert found.difference.lo < 0.4 < found.difference.hi
    assert found.difference.n == 8
    assert found.distance.tolist() == list(range(8))
    np.testing.assert_allclose(found.profile[:4], 0.5, atol=0.05)
    np.testing.assert_allclose(found.profile[4:], 0.1, atol=0.05)


def test_places_that_nothing_was_counted_at_have_no_rate() -> None:
    shown, found = np.zeros((2, H, W)), np.zeros((2, H, W))
    shown[:, 8, 8], found[:, 8, 8] = 4, 1
    made = places(sweep_of(Detection(), found=found, shown=shown))
    assert not isinstance(made, Skipped)
    assert np.isnan(made.map).sum() == H * W - 1
    assert made.map[8, 8] == 0.25
    assert np.isnan(made.near)
    assert isinstance(made.difference, Skipped)


def test_chunks_that_are_not_written_count_for_nothing() -> None:
    seen, changed = np.full((3, H, W), 2.0), np.ones((3, H, W))
    seen[2], changed[2] = -np.inf, -np.inf
    made = places(sweep_of(Segmentation(), changed=changed, seen=seen))
    assert not isinstance(made, Skipped)
    assert (made.map == 0.5).all()


def test_what_has_nothing_by_place_says_so() -> None:
    assert isinstance(places(sweep_of(CLASSIFICATION)), Skipped)
    empty = np.zeros((2, H, W))
    assert isinstance(places(sweep_of(Segmentation(), changed=empty, seen=empty)), Skipped)


class WithObjects:
    """Two objects in the first image, none in the second, one in each of the others."""

    grid = ShiftGrid(5)
    header = SimpleNamespace(task=Detection())

    def __init__(self) -> None:
        dy, dx = np.meshgrid(self.grid.dys, self.grid.dxs, indexing="ij")
        near = np.hypot(dy, dx) <= 4
        one = np.where(near, 0.5, 0.0)  # what is further away does not count
        one[5, 5], one[5, 9] = 0.8, 0.2
        other = np.where(near, 0.9, np.nan)
        once = np.full(near.shape, np.nan)
        once[5, 5] = 0.3  # a single shift has no swing
        self._of = [[one, other], [], [one], [once]]
        self.n_written = len(self._of)

    def objects(self, name: str, images: slice) -> Any:
        assert name == "object_confidence"
        chosen = range(len(self._of))[images]
        values = np.array([one for k in chosen for one in self._of[k]]).reshape(-1, *self.grid.shape)
        owner = [k for k in chosen for _ in self._of[k]]
        return xr.DataArray(values, {"image": ("object", owner)}, ("object", "dy", "dx"))


def test_the_swing_of_an_object_is_of_near_shifts_and_one_value_an_image() -> None:
    made = object_swing(WithObjects())  # type: ignore[arg-type]
    assert isinstance(made, Estimate)
    assert (made.value, made.n) == (pytest.approx((0.3 + 0.6) / 2), 2)


def test_a_sweep_of_a_detector_says_both(tmp_path: Path) -> None:
    from tasks.test_swept_tasks import BOXES, GRID, PIXELS, detector, wrapped

    made = sl.sweep(wrapped(detector()), sl.ImageSet(PIXELS, BOXES), GRID, out=tmp_path / "s.zarr", task="detection")
    swing, found = object_swing(made), places(made)
    assert isinstance(swing, Estimate)
    assert 0 <= swing.value <= 1
    assert not isinstance(found, Skipped)
    assert np.nansum(found.map) > 0
    assert isinstance(object_swing(made, radius=1.0), Skipped)


def test_a_number_that_is_0_nearly_everywhere_has_a_band_of_its_own_size(tmp_path: Path) -> None:
    from tasks.test_swept_tasks import BOXES, GRID, PIXELS, detector, wrapped

    made = sl.sweep(wrapped(detector()), sl.ImageSet(PIXELS, BOXES), GRID, out=tmp_path / "s.zarr", task="detection")
    worst = next(each for each in sl.findings(made) if each.kind == "n_unmatched-worst")
    assert worst.estimate is not None
    assert worst.estimate.hi < 1000, "a mean that is 0 in some samples has no logarithm"
