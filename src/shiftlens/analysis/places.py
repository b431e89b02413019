"""By the place in the frame: a rate as a map, by the distance to the border, and the border against the interior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftlens.stats import Estimate, FloatArray, Skipped, mean_estimate
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.task import ByPlace

BORDER = 12
"""Pixels from a border that count as the border; at most a quarter of the frame's shorter side."""
FEWEST_CHUNKS = 5
"""Chunks of images that an interval needs: a sum over windows is stored for each chunk, not for each image."""
OBJECT_RADIUS = 4.0
"""Pixels: shifts of at most this length are compared for each object."""


@dataclass(frozen=True, eq=False)
class Places:
    """A rate by the place in the frame.

    Attributes
    ----------
    what
        The rate.
    map
        (y, x); NaN where nothing was counted.
    distance, profile
        Pixels to the nearest border, ascending from 0, and the rate there.
    border
        Width of what counts as the border.
    near, inside
        The rate within `border` px of a border, and further inside.
    difference
        `near` minus `inside`, with an interval over chunks of images; `Skipped` where there are few.
    """

    what: ByPlace
    map: FloatArray
    distance: NDArray[np.int64]
    profile: FloatArray
    border: int
    near: float
    inside: float
    difference: Estimate | Skipped


def places(sweep: Sweep) -> Places | Skipped:
    """Return the task's rate by the place in the frame, over all shifts and the images written so far."""
    what = sweep.header.task.by_place
    if what is None:
        return Skipped("by place", f"the task {sweep.header.task.name} stores nothing by place")
    total, count = (np.asarray(sweep.dataset[name].values, np.float64) for name in (what.total, what.count))
    whole = np.isfinite(total).all(axis=(1, 2)) & np.isfinite(count).all(axis=(1, 2))
    total, count = total[whole], count[whole]
    h, w = total.shape[1:]
    border = max(1, min(BORDER, min(h, w) // 4))
    rows, columns = np.arange(h), np.arange(w)
    far = np.minimum(np.minimum(rows, h - 1 - rows)[:, None], np.minimum(columns, w - 1 - columns)[None, :])
    if not count.sum():
        return Skipped("by place", "no window was counted")
    near = far < border
    by_chunk = np.array([_rate(total[:, part].sum(1), count[:, part].sum(1)) for part in (near, ~near)])
    steps = by_chunk[0] - by_chunk[1]
    steps = steps[np.isfinite(steps)]
    difference: Estimate | Skipped = Skipped("border", f"an interval needs {FEWEST_CHUNKS} chunks of images")
    if len(steps) >= FEWEST_CHUNKS:
        bounds = (-1.0, 1.0) if what.unit == "share" else (-np.inf, np.inf)
        difference = mean_estimate(steps, what.unit, bounds=bounds)
    distance = np.unique(far)
    sums = [(total[:, far == d].sum(), count[:, far == d].sum()) for d in distance]
    return Places(
        what,
        _rate(total.sum(0), count.sum(0)),
        distance,
        np.array([float(_rate(np.array(t), np.array(n))) for t, n in sums]),
        border,
        float(_rate(total[:, near].sum(), count[:, near].sum())),
        float(_rate(total[:, ~near].sum(), count[:, ~near].sum())),
        difference,
    )


def _rate(total: FloatArray, count: FloatArray) -> FloatArray:
    rate: FloatArray = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
    return rate


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
    dy, dx = np.meshgrid(sweep.grid.dys, sweep.grid.dxs, indexing="ij")
    close = np.hypot(dy, dx) <= radius
    if close.sum() < 2:
        return Skipped("swing of objects", f"the grid has no two shifts within {radius:g} px")
    means = np.full(sweep.n_written, np.nan)
    for k in range(sweep.n_written):
        values = np.asarray(sweep.objects(name, slice(k, k + 1)).values, np.float64)[:, close]
        known = values[np.count_nonzero(~np.isnan(values), axis=1) >= 2]
        if len(known):
            means[k] = (np.nanmax(known, axis=1) - np.nanmin(known, axis=1)).mean()
    return means
