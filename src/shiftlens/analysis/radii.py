"""What happens within every radius: the mean over the disc, and the mean of each image's worst shift in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shiftlens.analysis.arrays import Values
from shiftlens.stats import FloatArray, mean_interval, wilson
from shiftlens.tasks.task import Variable


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
        (disc,) over images and shifts, Student t over images; ends nan for a single image.
    every, every_lo, every_hi
        (disc,) mean over images of the worst under these shifts: of a share, the images that have it under every one
        of them (Wilson); else Student t.
    """

    radius: FloatArray
    n_shifts: FloatArray
    mean: FloatArray
    mean_lo: FloatArray
    mean_hi: FloatArray
    every: FloatArray
    every_lo: FloatArray
    every_hi: FloatArray


def discs(values: Values) -> Discs:
    """Return all discs around (0, 0) that the grid holds whole, a step of the grid apart; at least that of (0, 0)."""
    sweep, metric = values.sweep, values.metric
    radius = np.arange(0, sweep.reach + 1, max(sweep.step), dtype=np.float64)
    distance = np.where(sweep.blank, np.inf, sweep.distance).ravel()
    order = np.argsort(distance, kind="stable")
    # Cells in order of distance: a disc is a beginning of that row.
    ends = np.searchsorted(distance[order], radius, side="right")
    cells = order[: ends[-1]]
    starts = np.concatenate([[0], ends[:-1]])
    full = np.flatnonzero(ends > starts)  # a coarse grid has rings without a shift
    mean, worst = (np.empty((sweep.n_images, len(radius))) for _ in range(2))
    for s in sweep.slices():
        inside = metric.sign * np.asarray(values[s], np.float64)[:, cells]
        sums, counts = (np.zeros((len(inside), len(radius))) for _ in range(2))
        lowest = np.full(sums.shape, np.nan)
        there = ~np.isnan(inside)
        sums[:, full] = np.add.reduceat(np.where(there, inside, 0), starts[full], axis=1)
        counts[:, full] = np.add.reduceat(there, starts[full], axis=1, dtype=np.int64)
        lowest[:, full] = np.fmin.reduceat(inside, starts[full], axis=1)
        sums, counts = sums.cumsum(axis=1), counts.cumsum(axis=1)
        mean[s] = metric.sign * np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        worst[s] = metric.sign * np.fmin.accumulate(lowest, axis=1)
    every = _means(worst, metric)
    if metric.is_share:
        every = every[0], *wilson(np.rint(worst.sum(axis=0)), sweep.n_images)
    return Discs(radius, ends.astype(np.float64), *_means(mean, metric), *every)


def _means(per_image: FloatArray, metric: Variable) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean over images and its ends, one column a disc; NaN left out."""
    counts = np.count_nonzero(~np.isnan(per_image), axis=0)
    sums = np.nansum(per_image, axis=0)
    mean = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    _, low, high, _ = mean_interval(np.zeros(len(sums)), np.nansum((per_image - mean) ** 2, axis=0), counts)
    return mean, np.maximum(mean + low, metric.bounds[0]), np.minimum(mean + high, metric.bounds[1])
