"""One number a shift: accuracy, loss and per-class accuracy, with intervals and simultaneous bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import BoolArray, IntArray, SweepArrays, image_slices
from shiftlens.stats import (
    CONFIDENCE,
    FloatArray,
    Skipped,
    max_t,
    mean_interval,
    resampled_sums,
    wilson,
    z_value,
)


@dataclass(frozen=True, eq=False)
class MapEstimate:
    """A map over shifts with its intervals.

    Attributes
    ----------
    value, lo, hi
        (dy, dx), the estimate and the 95 % interval of each cell by itself.
    band_lo, band_hi
        (dy, dx), wider: all cells lie inside together with 95 % confidence. For whoever searches the map.
    unit
        "share" or "nats".
    n
        Number of images behind each cell.
    method
        How the intervals were made.
    """

    value: FloatArray
    lo: FloatArray
    hi: FloatArray
    band_lo: FloatArray
    band_hi: FloatArray
    unit: str
    n: int
    method: str


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Accuracy of each class under each shift.

    Attributes
    ----------
    names
        Names of the classes.
    n
        (class,) number of images of each class; 0 for a class that the images do not hold.
    right
        (class, dy, dx) number of them that are right.
    """

    names: tuple[str, ...]
    n: IntArray
    right: NDArray[np.int32]

    def accuracy(self, which: int) -> FloatArray:
        """Return the map (dy, dx) of one class; nan for a class without images."""
        n = int(self.n[which])
        return self.right[which] / n if n else np.full(self.right.shape[1:], np.nan)

    def interval(self, which: int) -> tuple[FloatArray, FloatArray]:
        """Return the Wilson interval (dy, dx) of one class."""
        return wilson(self.right[which], np.int64(self.n[which]))


@dataclass(frozen=True, eq=False)
class Replicates:
    """A map and its bootstrap replicates over images, cells flattened in (dy, dx) order.

    Attributes
    ----------
    value
        (cell,) the map itself.
    resampled
        (resample, cell) the map of each bootstrap sample.
    n
        Number of images.
    """

    value: FloatArray
    resampled: FloatArray
    n: int

    @property
    def se(self) -> FloatArray:
        """(cell,) bootstrap standard error, with n - 1 in the denominator like the formula's."""
        return standard_error(self.resampled, self.n)


def standard_error(resampled: FloatArray, n: int) -> FloatArray:
    """Return the standard error of bootstrap columns; the bootstrap's own divides by n, not n - 1."""
    out: FloatArray = resampled.std(axis=0) * np.sqrt(n / max(n - 1, 1))
    return out


def right_counts(correct: BoolArray) -> IntArray:
    """Return how many images are right under each shift, shape (dy, dx)."""
    total = np.zeros(correct.shape[1:], np.int64)
    for s in image_slices(len(correct), total.size):
        total += correct[s].sum(axis=0, dtype=np.int32)
    return total


def accuracy_replicates(correct: BoolArray, weights: NDArray[np.uint8]) -> Replicates:
    """Return the accuracy map and its bootstrap replicates.

    Parameters
    ----------
    correct
        (image, dy, dx).
    weights
        (resample, image), see `stats.resample_weights`.
    """
    n, flat = len(correct), correct.reshape(len(correct), -1)
    chunks = ((s, flat[s]) for s in image_slices(n, flat.shape[1]))
    return Replicates(right_counts(correct).ravel() / n, resampled_sums(weights, chunks, flat.shape[1]) / n, n)


def accuracy_map(correct: BoolArray, replicates: Replicates | None = None) -> MapEstimate:
    """Return the share of images that are right under each shift, with Wilson intervals.

    Parameters
    ----------
    correct
        (image, dy, dx).
    replicates
        Give the simultaneous band its critical value (max-t); without them it is Bonferroni's.
    """
    return share_map(right_counts(correct), len(correct), replicates)


def share_map(counts: IntArray, n: int, replicates: Replicates | None = None) -> MapEstimate:
    """Return a map of shares from counts out of `n` images."""
    lo, hi = wilson(counts, n)
    if replicates is None or n < 2:
        band, how = z_value(CONFIDENCE, counts.size), "Bonferroni"
    else:
        p = replicates.value
        # Wilson's own scale, so that cells near 0 and 1 do not decide the critical value by their skewness.
        scale = np.sqrt(p * (1 - p) / n + 1 / (4 * n * n))
        null = max_t(replicates.resampled, p, np.where((p > 0) & (p < 1), scale, 0.0))
        band, how = max(float(np.quantile(null, CONFIDENCE)), z_value()), "max-t bootstrap over images"
    band_lo, band_hi = wilson(counts, n, band)
    return MapEstimate(counts / n, lo, hi, band_lo, band_hi, "share", n, f"Wilson; band by {how}")


def class_maps(correct: BoolArray, labels: IntArray, names: tuple[str, ...]) -> ClassMaps | Skipped:
    """Return each class's accuracy map, or `Skipped` when there is only one class."""
    if len(np.unique(labels)) < 2:
        return Skipped("per-class maps", "all images are of one class: its map is the accuracy map")
    n_classes = max(len(names), int(labels.max()) + 1)
    right = np.zeros((n_classes, *correct.shape[1:]), np.int32)
    for s in image_slices(len(correct), right[0].size):
        for k in np.unique(labels[s]):
            right[k] += correct[s][labels[s] == k].sum(axis=0, dtype=np.int32)
    names = names + tuple(str(k) for k in range(len(names), n_classes))
    return ClassMaps(names, np.bincount(labels, minlength=n_classes), right)


def loss_map(sweep: SweepArrays, weights: NDArray[np.uint8]) -> tuple[MapEstimate, Replicates] | Skipped:
    """Return the mean loss under each shift with intervals, and its bootstrap replicates, in one pass over the file.

    Parameters
    ----------
    sweep
        Its loss is read once, a chunk at a time.
    weights
        (resample, image), see `stats.resample_weights`.
    """
    n, n_cells = sweep.n_images, int(np.prod(sweep.shape))
    if n < 2:
        return Skipped("loss", "one image has no interval")
    resampled = np.zeros((len(weights), n_cells), np.float32)
    total, squares = np.zeros(n_cells), np.zeros(n_cells)
    # Around the first image's loss: squares of the differences keep their digits.
    base = np.asarray(sweep.loss[slice(0, 1)], np.float32).reshape(1, n_cells)
    for s in sweep.slices():
        values = np.asarray(sweep.loss[s], np.float32).reshape(-1, n_cells) - base
        total += values.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", values, values, dtype=np.float64)
        resampled += weights[:, s].astype(np.float32) @ values
    if not (np.isfinite(total).all() and np.isfinite(squares).all()):
        return Skipped("loss", "the sweep holds a loss that is not finite")
    mean, lo, hi, se = (a.reshape(sweep.shape) for a in mean_interval(total, squares, n))
    offset = base.reshape(sweep.shape).astype(np.float64)
    resampled /= n
    replicates = Replicates(mean.ravel() + offset.ravel(), resampled + offset.ravel(), n)
    del resampled
    value = mean + offset
    factor = np.exp(_log_half_width(replicates, se.ravel()).reshape(sweep.shape))
    estimate = MapEstimate(
        value,
        np.maximum(lo + offset, 0),
        hi + offset,
        value / factor,
        value * factor,
        "nats",
        n,
        "Student t; band by max-t bootstrap of log mean loss over images",
    )
    return estimate, replicates


def _log_half_width(replicates: Replicates, se: FloatArray) -> FloatArray:
    """Return half the width of the simultaneous band of the logarithm of the mean loss, (cell,).

    A few images carry most of a mean loss, and a sample that misses them has a low mean and a small standard error at
    once; on the logarithm the two nearly part. What is left cost up to 3 points of coverage
    in simulation: the critical value is the 97.5 % quantile.
    """
    tiny = np.finfo(np.float64).tiny
    value = np.maximum(replicates.value, tiny)
    relative = se / value
    # A hundred samples at a time: no second copy of all the replicates.
    blocks = (replicates.resampled[k : k + 100] for k in range(0, len(replicates.resampled), 100))
    null = np.concatenate([max_t(np.log(np.maximum(block, tiny)), np.log(value), relative) for block in blocks])
    out: FloatArray = max(float(np.quantile(null, (1 + CONFIDENCE) / 2)), z_value()) * relative
    return out
