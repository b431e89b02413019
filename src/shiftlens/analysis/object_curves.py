"""One line an object: how its confidence changes as the image moves along x or along y."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shiftlens.analysis.arrays import IntArray
from shiftlens.stats import Estimate, FloatArray, Skipped, mean_estimate
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.task import OBJECT

OBJECT_RADIUS = 4.0
"""Pixels: shifts of at most this length are compared for each object."""
_AT_ONCE = 16
"""Images that are read together."""


@dataclass(frozen=True, eq=False)
class ObjectCurves:
    """A number of each object along the two axes of the grid.

    Attributes
    ----------
    name
        The variable.
    dxs, dys
        Shifts in px.
    across, down
        (object, dx) at dy = 0 and (object, dy) at dx = 0; NaN where less than half of the object is in view.
    swing
        (object,) largest less smallest over the shifts of at most `OBJECT_RADIUS` px; NaN with fewer than two of them.
    image, place
        (object,) which of the written images it is in, and which of that image's objects it is.
    """

    name: str
    dxs: IntArray
    dys: IntArray
    across: FloatArray
    down: FloatArray
    swing: FloatArray
    image: IntArray
    place: IntArray

    @property
    def called(self) -> str:
        """The name in a sentence that speaks of objects: "confidence"."""
        return self.name.removeprefix("object_").replace("_", " ")


def object_curves(sweep: Sweep, name: str | None = None) -> ObjectCurves | Skipped:
    """Return the curves of every object of the images written so far.

    Parameters
    ----------
    sweep
        Of a task that stores numbers of objects.
    name
        Which; by default the first.
    """
    known = [each.name for each in sweep.header.task.variables if each.dims == OBJECT]
    wanted = (known or [""])[0] if name is None else name
    if wanted not in known:
        return Skipped("objects", f"the task {sweep.header.task.name} has no {name or 'numbers of objects'}")
    dys, dxs = (np.asarray(axis, np.int64) for axis in (sweep.grid.dys, sweep.grid.dxs))
    row, column = int(np.flatnonzero(dys == 0)[0]), int(np.flatnonzero(dxs == 0)[0])
    across, down, swing, image, place = [], [], [], [], []
    for k, values in _by_image(sweep, wanted):
        across.append(values[:, row])
        down.append(values[:, :, column])
        swing.append(swings(values, dys, dxs))
        image.append(np.full(len(values), k))
        place.append(np.arange(len(values)))
    if not sum(map(len, swing)):
        return Skipped("objects", "no image has objects")
    parts = (np.concatenate(each) for each in (across, down, swing, image, place))
    return ObjectCurves(wanted, dxs, dys, *parts)


def object_swing(sweep: Sweep, name: str = "object_confidence", radius: float = OBJECT_RADIUS) -> Estimate | Skipped:
    """Return by how much a number of the same object differs between shifts of at most `radius` px.

    For each object the largest less the smallest value, over the shifts under which it has one (two at least); the mean
    over the objects of an image is one value, and the interval is over images.
    """
    means = swing_per_image(sweep, name, radius)
    if isinstance(means, Skipped):
        return means
    means = means[~np.isnan(means)]
    if len(means) < 2:
        return Skipped("swing of objects", "fewer than two images have objects in view")
    return mean_estimate(means, "share", bounds=(0, 1))


def swing_per_image(
    sweep: Sweep, name: str = "object_confidence", radius: float = OBJECT_RADIUS
) -> FloatArray | Skipped:
    """The same of each image that is written, (image,); NaN where no object has a value under two shifts."""
    if name not in {each.name for each in sweep.header.task.variables}:
        return Skipped("swing of objects", f"the task {sweep.header.task.name} has no {name}")
    dys, dxs = (np.asarray(axis, np.int64) for axis in (sweep.grid.dys, sweep.grid.dxs))
    if np.count_nonzero(np.hypot(*np.meshgrid(dys, dxs)) <= radius) < 2:
        return Skipped("swing of objects", f"the grid has no two shifts within {radius:g} px")
    found = (swings(values, dys, dxs, radius) for _, values in _by_image(sweep, name))
    return np.array([np.nan if np.isnan(each).all() else each[~np.isnan(each)].mean() for each in found])


def swings(values: FloatArray, dys: IntArray, dxs: IntArray, radius: float = OBJECT_RADIUS) -> FloatArray:
    """Largest less smallest (object,) of values (object, dy, dx) within `radius` px; NaN for fewer than two values."""
    close = values[:, np.hypot(dys[:, None], dxs[None, :]) <= radius]
    known = np.count_nonzero(~np.isnan(close), axis=1) >= 2
    out = np.full(len(values), np.nan)
    out[known] = np.nanmax(close[known], axis=1) - np.nanmin(close[known], axis=1)
    return out


def _by_image(sweep: Sweep, name: str) -> Iterator[tuple[int, FloatArray]]:
    """Each written image's number and its objects' values (object, dy, dx)."""
    for start in range(0, sweep.n_written, _AT_ONCE):
        images = slice(start, min(start + _AT_ONCE, sweep.n_written))
        found = sweep.objects(name, images)
        values, owner = np.asarray(found.values, np.float64), np.asarray(found["image"].values)
        for k in range(images.start, images.stop):
            yield k, values[owner == k]
