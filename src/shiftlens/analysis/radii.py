"""What happens within every radius: mean accuracy over the disc, and the share of images that survive all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shiftlens.analysis.arrays import SweepArrays
from shiftlens.stats import FloatArray, mean_interval, wilson


@dataclass(frozen=True, eq=False)
class Discs:
    """One entry a radius, ascending.

    Attributes
    ----------
    radius
        (disc,) px: shifts of at most this length (Euclidean), those that leave nothing of the picture left out.
    n_shifts
        (disc,)
    mean, mean_lo, mean_hi
        (disc,) share: accuracy over images and shifts, Student t over images; ends nan for a single image.
    every, every_lo, every_hi
        (disc,) share of images that are right under every one of these shifts, Wilson.
    """

    radius: FloatArray
    n_shifts: FloatArray
    mean: FloatArray
    mean_lo: FloatArray
    mean_hi: FloatArray
    every: FloatArray
    every_lo: FloatArray
    every_hi: FloatArray


def discs(sweep: SweepArrays) -> Discs:
    """Return all discs around (0, 0) that the grid holds whole, a step of the grid apart; at least that of (0, 0)."""
    radius = np.arange(0, sweep.reach + 1, max(sweep.step), dtype=np.float64)
    distance = np.where(sweep.blank, np.inf, sweep.distance).ravel()
    order = np.argsort(distance, kind="stable")
    # Cells in order of distance: a disc is a beginning of that row.
    ends = np.searchsorted(distance[order], radius, side="right")
    cells = order[: ends[-1]]
    starts = np.concatenate([[0], ends[:-1]])
    full = np.flatnonzero(ends > starts)  # a coarse grid has rings without a shift
    n = sweep.n_images
    per_image = np.empty((n, len(radius)))
    survived = np.zeros(len(radius), np.int64)
    for s in sweep.slices():
        right = sweep.correct[s].reshape(-1, distance.size)[:, cells]
        rings = np.zeros((len(right), len(radius)), np.int64)
        rings[:, full] = np.add.reduceat(right, starts[full], axis=1, dtype=np.int32)
        counted = rings.cumsum(axis=1)
        survived += (counted == ends).sum(axis=0)
        per_image[s] = counted / ends
    mean = per_image.mean(axis=0)
    nothing = np.full(len(radius), np.nan)
    lo, hi = nothing, nothing
    if n > 1:
        _, low, high, _ = mean_interval(np.zeros(len(radius)), ((per_image - mean) ** 2).sum(axis=0), n)
        lo, hi = np.clip(mean + low, 0, 1), np.clip(mean + high, 0, 1)
    every_lo, every_hi = wilson(survived, n)
    return Discs(radius, ends.astype(np.float64), mean, lo, hi, survived / n, every_lo, every_hi)
