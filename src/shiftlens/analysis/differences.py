"""Paired differences of a metric, summed over images a chunk at a time: one column for each pair of windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from shiftlens.analysis.arrays import BoolArray, FloatArray, IntArray, Values, image_slices, row_means
from shiftlens.stats import (
    CONFIDENCE,
    Estimate,
    Skipped,
    benjamini_hochberg,
    mcnemar_exact,
    mean_estimate,
    mean_interval,
    paired_share_interval,
    t_p_value,
    z_value,
)
from shiftlens.tasks.task import Variable


@dataclass(frozen=True, eq=False)
class Effects:
    """A paired difference in each of many columns (cells, or pairs of them): points of a share, else the metric's unit.

    Attributes
    ----------
    overall
        Mean over the tested columns, with interval and p-value over images.
    effect, lo, hi
        Of each column; the intervals hold for all tested columns together (Bonferroni).
    p, q
        McNemar exact (Student t for a number, or where two differences are added) and its Benjamini-Hochberg
        adjustment over the tested columns; 1 for the others.
    """

    overall: Estimate
    effect: FloatArray
    lo: FloatArray
    hi: FloatArray
    p: FloatArray
    q: FloatArray

    @property
    def n(self) -> int:
        """Number of images."""
        return self.overall.n


class Differences:
    """Sums over images of paired differences, one column a pair; shares are counted exactly.

    Parameters
    ----------
    metric, n_images, n_columns
        What is compared, and how many images and pairs are to come.
    terms
        Differences that each value is the sum of: 2 where the same pair is also seen on a control. The mean is taken.
    """

    def __init__(self, metric: Variable, n_images: int, n_columns: int, terms: int = 1) -> None:
        self.metric, self.n_images, self.terms = metric, n_images, terms
        kind = np.int64 if metric.is_share else np.float64
        self.total, self.squares = np.zeros(n_columns, kind), np.zeros(n_columns, kind)
        self.counts: IntArray = np.full(n_columns, 0 if metric.optional else n_images)
        self.per_image = np.empty(n_images)

    def add(self, images: slice, values: NDArray[Any], columns: BoolArray | slice = slice(None)) -> None:
        """Add some images, (image, pair): int8, or floats with NaN; `per_image` is their mean over some columns."""
        self.per_image[images] = row_means(values[:, columns])
        if self.metric.optional:
            there = ~np.isnan(values)
            self.counts += there.sum(axis=0)
            values = np.where(there, values, 0)
        kind = np.int32 if self.metric.is_share else np.float64
        self.total += values.sum(axis=0, dtype=kind)
        self.squares += np.square(values, dtype=np.int8 if self.metric.is_share else kind).sum(axis=0, dtype=kind)

    @property
    def gained(self) -> IntArray:
        """Images of a share whose difference is 1, (pair,)."""
        return np.asarray((self.squares + self.total) // 2, np.int64)

    @property
    def lost(self) -> IntArray:
        """Images of a share whose difference is -1, (pair,)."""
        return np.asarray((self.squares - self.total) // 2, np.int64)

    @property
    def mean(self) -> FloatArray:
        """Mean of what was added, (pair,); NaN for a pair that no image has."""
        out = np.full(len(self.total), np.nan)
        np.divide(self.total, self.counts, out=out, where=self.counts > 0)
        return out

    @property
    def value(self) -> FloatArray:
        """Mean difference, (pair,), in the unit in which differences are said."""
        if self.terms == 1 and self.metric.is_share:
            return np.asarray(self.metric.factor * self.total / self.n_images)
        return self.metric.factor / self.terms * self.mean

    def interval(self, z: float) -> tuple[FloatArray, FloatArray]:
        """The interval of each pair by a critical value of the normal distribution, in the same unit."""
        lo, hi = self.interval_of_mean(z)
        factor = self.metric.factor / self.terms
        return factor * lo, factor * hi

    def interval_of_mean(self, z: float) -> tuple[FloatArray, FloatArray]:
        """The same of what was added: by exact counts of a share, else Student's of the same level."""
        n = self.n_images
        if not self.metric.is_share:
            _, lo, hi, _ = mean_interval(self.total, self.squares, self.counts, 1 - 2 * float(special.ndtr(-z)))
            return lo, hi
        if self.terms == 1:
            return paired_share_interval(self.gained, self.lost, n, z)
        # z^2 / 4 images of each sign are added, as in the interval of paired shares: no pair is without spread.
        half = z * np.sqrt((self.squares + z * z / 2 - self.total * self.mean) / n / n)
        return self.mean - half, self.mean + half

    def p_values(self) -> FloatArray:
        """That each pair does not differ: exact McNemar for a share, else Student's t."""
        n = self.n_images
        if not self.metric.is_share:
            mean, _, _, se = mean_interval(self.total, self.squares, self.counts)
            # A spread of the size of the rounding is none.
            return t_p_value(mean, np.where(se > 1e-7 * np.abs(mean), se, 0.0 * se), self.counts)
        if self.terms == 1:
            return mcnemar_exact(self.gained, self.lost)
        se = np.sqrt((self.squares + 2 - self.total * self.mean) / n / n)
        p: FloatArray = 2 * special.stdtr(n - 1, -np.abs(self.mean) / se)
        return p

    def effects(self, tested: BoolArray | None = None, shape: tuple[int, ...] = (-1,)) -> Effects:
        """The differences in all columns, brought to a shape; some of them (all by default) are tested."""
        chosen = np.ones(len(self.total), np.bool_) if tested is None else tested
        p, q = np.where(chosen, self.p_values(), 1.0), np.ones(len(chosen))
        q[chosen] = benjamini_hochberg(p[chosen])
        lo, hi = self.interval(z_value(n_comparisons=int(chosen.sum())))
        overall = difference_of(self.metric, self.per_image / self.terms)
        return Effects(overall, *(each.reshape(shape) for each in (self.value, lo, hi, p, q)))


def sums_of(values: Values, rows: IntArray | None = None) -> Differences:
    """Sum a metric over all images, or those of some rows: one column a shift."""
    rows = np.arange(values.sweep.n_images) if rows is None else rows
    found = Differences(values.metric, len(rows), values.n_cells)
    for s in image_slices(len(rows), values.n_cells):
        found.add(s, values.rows(rows[s]))
    return found


def mean_of(metric: Variable, values: FloatArray, site: str) -> Estimate | Skipped:
    """Return the mean of a metric, one value an image (NaN left out), with Student's interval."""
    if np.count_nonzero(~np.isnan(values)) < 2:
        return Skipped(site, "one image has no interval")
    return mean_estimate(values, metric.unit, bounds=metric.bounds)


def difference_of(metric: Variable, values: FloatArray, widest: int = 1, confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of one difference an image (NaN left out), in the unit in which differences are said.

    The bounds are `widest` times as wide where a value is the sum of that many differences.
    """
    lo, hi = (widest * bound for bound in metric.difference_bounds)
    estimate = mean_estimate(values, metric.unit, bounds=(lo, hi), confidence=confidence)
    return estimate.scaled(metric.factor, metric.difference_unit)
