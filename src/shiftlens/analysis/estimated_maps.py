"""One number a shift: the mean of a metric, and of each class, with intervals and simultaneous bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from shiftlens.analysis.arrays import IntArray, Values
from shiftlens.stats import (
    CONFIDENCE,
    FloatArray,
    Skipped,
    max_t,
    mean_interval,
    t_value,
    wilson,
    z_value,
)
from shiftlens.tasks.task import Variable


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
        Of the metric.
    n
        Number of images.
    method
        How the intervals were made.
    n_each
        (dy, dx) number of images with a value, where not all have one under every shift.
    """

    value: FloatArray
    lo: FloatArray
    hi: FloatArray
    band_lo: FloatArray
    band_hi: FloatArray
    unit: str
    n: int
    method: str
    n_each: IntArray | None = None


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
    metric
        What the map is of.
    counts
        (cell,) images with a value there; None where every image has one everywhere.
    """

    value: FloatArray
    resampled: FloatArray
    n: int
    metric: Variable
    counts: IntArray | None = None

    @property
    def floor(self) -> float:
        """One image of a share: cells on which the few samples agree are not known without error."""
        return 1 / self.n if self.metric.is_share else 0.0


def standard_error(resampled: FloatArray, n: int) -> FloatArray:
    """Return the standard error of bootstrap columns; the bootstrap's own divides by n, not n - 1."""
    out: FloatArray = resampled.std(axis=0) * np.sqrt(n / max(n - 1, 1))
    return out


def estimated_map(values: Values, weights: NDArray[np.uint8]) -> tuple[MapEstimate, Replicates] | Skipped:
    """Return the mean of a metric under each shift with intervals, and its bootstrap replicates, in one pass.

    Weights are (resample, image), see `stats.resample_weights`.
    """
    metric, n, m = values.metric, values.sweep.n_images, values.n_cells
    if n < 2 and not metric.is_share:
        return Skipped(metric.called, "one image has no interval")
    resampled = np.zeros((len(weights), m), np.float32)
    drawn = np.zeros_like(resampled) if metric.optional else None
    total, squares, counts = np.zeros(m), np.zeros(m), np.full(m, 0 if metric.optional else n)
    # Around the first image's values: squares of the differences keep their digits. Counts are exact as they are.
    base = np.zeros((1, m), np.float32) if metric.is_share else np.nan_to_num(values[:1], nan=0.0)
    for s in values.sweep.slices():
        some, weight = np.asarray(values[s], np.float32) - base, weights[:, s].astype(np.float32)
        if drawn is not None:
            there = ~np.isnan(some)
            some = np.where(there, some, np.float32(0))
            counts += there.sum(axis=0)
            drawn += weight @ there.astype(np.float32)
        total += some.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", some, some, dtype=np.float64)
        resampled += weight @ some
    if not (np.isfinite(total).all() and np.isfinite(squares).all()):
        return Skipped(metric.called, f"the sweep holds a {metric.called} that is not finite")
    if not counts.any():
        return Skipped(metric.called, f"no image has a {metric.called}")
    if metric.is_share:
        sampled = Replicates(total / n, resampled.astype(np.float64) / n, n, metric)
        return share_map(total.reshape(values.sweep.shape).astype(np.int64), n, sampled), sampled
    mean, lo, hi, se = mean_interval(total, squares, n if drawn is None else counts)
    if drawn is None:
        resampled /= n
    else:
        # A sample without any image that has a value here says nothing: it takes the map's own.
        np.divide(resampled, drawn, out=resampled, where=drawn > 0)
        np.copyto(resampled, mean.astype(np.float32), where=drawn == 0)
    offset = base[0].astype(np.float64)
    sampled = Replicates(mean + offset, resampled + offset, n, metric, None if drawn is None else counts)
    del resampled, drawn
    return _number_map(sampled, lo + offset, hi + offset, se, counts, values.sweep.shape), sampled


def _number_map(
    sampled: Replicates, lo: FloatArray, hi: FloatArray, se: FloatArray, counts: IntArray, shape: tuple[int, int]
) -> MapEstimate:
    """Student's intervals, and a simultaneous band by max-t; of the logarithm for what has no upper end above 0."""
    metric, value = sampled.metric, sampled.value
    # A mean that is 0 in some sample has no logarithm.
    skewed = metric.bounds == (0, np.inf) and bool((sampled.resampled > 0).all()) and bool((value > 0).all())
    if skewed:
        factor = np.exp(_log_half_width(sampled, se))
        band = value / factor, value * factor
    else:
        critical = max(float(np.quantile(max_t(sampled.resampled, value, se), CONFIDENCE)), z_value())
        # Student's of the same level: the standard error is estimated too.
        half = t_value(special.ndtr(-critical), np.maximum(counts - 1, 1)) * se
        band = np.maximum(value - half, metric.bounds[0]), np.minimum(value + half, metric.bounds[1])
    cells = value, np.maximum(lo, metric.bounds[0]), np.minimum(hi, metric.bounds[1]), *band
    how = f"Student t; band by max-t bootstrap of {'log mean' if skewed else 'mean'} {metric.called} over images"
    maps = [each.reshape(shape) for each in cells]
    n_each = counts.reshape(shape) if metric.optional else None
    return MapEstimate(maps[0], maps[1], maps[2], maps[3], maps[4], metric.unit, sampled.n, how, n_each)


def share_map(counts: IntArray, n: int, replicates: Replicates | None = None) -> MapEstimate:
    """Return a map of shares from counts out of `n` images; without replicates, the band is Bonferroni's."""
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


def class_maps(values: Values) -> ClassMaps | Skipped:
    """Return each class's map, or `Skipped` where the images have no or only one class, or the metric is a number."""
    sweep, labels, names = values.sweep, values.sweep.labels, values.sweep.class_names
    if not values.metric.is_share or not len(labels):
        why = "images have no class" if values.metric.is_share else "they are of shares of images that are right"
        return Skipped("per-class maps", why)
    if len(np.unique(labels)) < 2:
        return Skipped("per-class maps", "all images are of one class: its map is the accuracy map")
    n_classes = max(len(names), int(labels.max()) + 1)
    right = np.zeros((n_classes, values.n_cells), np.int32)
    for s in sweep.slices():
        for k in np.unique(labels[s]):
            right[k] += values[s][labels[s] == k].sum(axis=0, dtype=np.int32)
    names = names + tuple(str(k) for k in range(len(names), n_classes))
    return ClassMaps(names, np.bincount(labels, minlength=n_classes), right.reshape(-1, *sweep.shape))


def _log_half_width(replicates: Replicates, se: FloatArray) -> FloatArray:
    """Return half the width of the simultaneous band of the logarithm of the mean, (cell,).

    A few images carry most of a mean loss, and a sample that misses them has a low mean and a small standard error at
    once; on the logarithm the two nearly part. What is left cost up to 3 points of coverage in simulation: the critical
    value is the 97.5 % quantile.
    """
    tiny = np.finfo(np.float64).tiny
    value = np.maximum(replicates.value, tiny)
    relative = se / value
    # A hundred samples at a time: no second copy of all the replicates.
    blocks = (replicates.resampled[k : k + 100] for k in range(0, len(replicates.resampled), 100))
    null = np.concatenate([max_t(np.log(np.maximum(block, tiny)), np.log(value), relative) for block in blocks])
    out: FloatArray = max(float(np.quantile(null, (1 + CONFIDENCE) / 2)), z_value()) * relative
    return out
