"""One line an object along each axis, and its swing, held against what a sweep stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import shiftlens as sl
from shiftlens.analysis.object_curves import ObjectCurves, object_curves, swings
from shiftlens.stats import Skipped


def test_the_curves_are_the_stored_numbers_through_the_middle(tmp_path: Path) -> None:
    from tasks.test_swept_tasks import BOXES, GRID, PIXELS, detector, wrapped

    made = sl.sweep(wrapped(detector()), sl.ImageSet(PIXELS, BOXES), GRID, out=tmp_path / "s.zarr", task="detection")
    curves = object_curves(made)
    assert isinstance(curves, ObjectCurves)
    stored = made.dataset["object_confidence"]
    assert len(curves.image) == sum(len(each["labels"]) for each in BOXES) == len(curves.swing)
    for k, (image, place) in enumerate(zip(curves.image, curves.place, strict=True)):
        one = stored[image, place]
        np.testing.assert_array_equal(curves.across[k], one.sel(dy=0))
        np.testing.assert_array_equal(curves.down[k], one.sel(dx=0))
        near = one.values[np.hypot(*np.meshgrid(one.dy, one.dx, indexing="ij")) <= 4]
        expected = np.nanmax(near) - np.nanmin(near) if np.isfinite(near).sum() > 1 else np.nan
        np.testing.assert_array_equal(curves.swing[k], expected)
    assert curves.called == "confidence"
    assert isinstance(object_curves(made, "recall"), Skipped)


def test_a_swing_needs_two_values_within_the_radius() -> None:
    dys, dxs = np.array([-5, 0, 5]), np.array([-3, 0, 3])
    values = np.full((2, 3, 3), np.nan)
    values[0, 1, 0], values[0, 1, 2], values[0, 0, 0] = 0.2, 0.9, 5.0
    values[1, 1, 1] = 1.0
    np.testing.assert_allclose(swings(values, dys, dxs), [0.7, np.nan])
