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
    sides
        The rate in that part of the border which is nearest to the left, right, top and bottom side.
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
    sides: dict[str, float]
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
    to_side = {
        "left": np.broadcast_to(columns[None, :], (h, w)),
        "right": np.broadcast_to((w - 1 - columns)[None, :], (h, w)),
        "top": np.broadcast_to(rows[:, None], (h, w)),
        "bottom": np.broadcast_to((h - 1 - rows)[:, None], (h, w)),
    }
    far = np.minimum.reduce(list(to_side.values()))
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
        {
            side: float(_rate(total[:, near & (to == far)].sum(), count[:, near & (to == far)].sum()))
            for side, to in to_side.items()
        },
        difference,
    )


def _rate(total: FloatArray, count: FloatArray) -> FloatArray:
    rate: FloatArray = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
    return rate
