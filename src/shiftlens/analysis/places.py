"""By the place in the frame: a rate as a map, by the distance to the border, and the border against the interior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats as sps

from shiftlens.stats import CONFIDENCE, Estimate, FloatArray, Skipped, t_p_value
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.task import ByPlace

BORDER = 12
"""Pixels from a border that count as the border; at most a quarter of the frame's shorter side."""
FEWEST_GROUPS = 5
"""Groups of images that an interval needs: what is stored by the place in the frame is summed over a group."""


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
        `near` minus `inside`, with an interval over groups of images; `Skipped` where there are few.
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


@dataclass(frozen=True, eq=False)
class PlaceSums:
    """What is stored by the place in the frame, of the images written so far.

    Attributes
    ----------
    total, count
        (y, x): over all images.
    far
        (y, x): pixels to the nearest border.
    border
        Width of what counts as the border.
    groups
        (group of images, near a border or inside, total or count).
    """

    total: FloatArray
    count: FloatArray
    far: NDArray[np.int64]
    border: int
    groups: FloatArray

    @property
    def near(self) -> NDArray[np.bool_]:
        """(y, x): what counts as the border."""
        return self.far < self.border


def too_few_groups(n: int) -> str:
    """Why so many groups of images have no interval; empty where they have."""
    if n >= FEWEST_GROUPS:
        return ""
    return f"an interval needs {FEWEST_GROUPS} groups of images, there are {n}: sweep more images"


def jackknife_error(without: FloatArray) -> float:
    """Standard error of a statistic from its values without each group, (group,); NaN where one is not defined."""
    n = len(without)
    return float(np.sqrt((n - 1) / n * np.square(without - without.mean()).sum()))


def place_sums(data: xr.Dataset, what: ByPlace) -> PlaceSums:
    """Read what a sweep stores by the place in the frame, one group of images after the other."""
    h, w = data[what.count].shape[1:]
    y, x = np.minimum(np.arange(h), np.arange(h)[::-1]), np.minimum(np.arange(w), np.arange(w)[::-1])
    far, border = np.minimum(y[:, None], x), max(1, min(BORDER, min(h, w) // 4))
    both, groups = np.zeros((2, h, w)), []
    for group in range(len(data[what.count])):
        one = np.stack([np.asarray(data[name][group].values, np.float64) for name in (what.total, what.count)])
        if np.isfinite(one).all():  # else it is not written yet
            both += one
            groups.append([one[:, part].sum(axis=1) for part in (far < border, far >= border)])
    return PlaceSums(both[0], both[1], far, border, np.reshape(groups, (-1, 2, 2)))


def places(sweep: Sweep) -> Places | Skipped:
    """Return the task's rate by the place in the frame, over all shifts and the images written so far."""
    what = sweep.header.task.by_place
    if what is None:
        return Skipped("by place", f"the task {sweep.header.task.name} stores nothing by place")
    sums = place_sums(sweep.dataset, what)
    if not sums.count.sum():
        return Skipped("by place", "no window was counted")
    (h, w), distance = sums.far.shape, np.unique(sums.far)
    rows, columns = np.arange(h)[:, None], np.arange(w)
    to_side = {"left": columns, "right": w - 1 - columns, "top": rows, "bottom": h - 1 - rows}

    def rate_of(part: NDArray[np.bool_]) -> float:
        return float(_rate(sums.total[part].sum(), sums.count[part].sum()))

    return Places(
        what,
        _rate(sums.total, sums.count),
        distance,
        np.array([rate_of(sums.far == d) for d in distance]),
        sums.border,
        rate_of(sums.near),
        rate_of(~sums.near),
        {side: rate_of(sums.near & (to == sums.far)) for side, to in to_side.items()},
        _difference(sums, what),
    )


def _difference(sums: PlaceSums, what: ByPlace) -> Estimate | Skipped:
    def step(of: FloatArray) -> FloatArray:
        rates = _rate(of[..., 0], of[..., 1])
        return np.asarray(rates[..., 0] - rates[..., 1])

    whole, n = sums.groups.sum(axis=0), len(sums.groups)
    if why := too_few_groups(n):
        return Skipped("border", why)
    value, se = float(step(whole)), jackknife_error(step(whole - sums.groups))
    if np.isnan(se):
        return Skipped("border", "without one group of images nothing is counted near the border or inside")
    half = float(sps.t.isf((1 - CONFIDENCE) / 2, n - 1)) * se
    end = 1.0 if what.unit == "share" else np.inf
    lo, hi = max(value - half, -end), min(value + half, end)
    return Estimate(value, lo, hi, what.unit, n, "", float(t_p_value(value, se, n)))


def _rate(total: FloatArray, count: FloatArray) -> FloatArray:
    rate: FloatArray = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=np.asarray(count) > 0)
    return rate
