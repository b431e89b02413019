"""What a sweep says about one number: a bound at any level, so that a limit can be proven kept or proven breached.

Every bound is one-sided: at level alpha, the lower bound exceeds the truth with a probability of at most alpha, and so
does the upper bound fall below it. A p-value is the level at which the bound just reaches the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import FloatArray
from shiftlens.stats import Skipped, t_value

LEAST_P = 1e-9
N_POWER_DRAWS = 500
_BISECTIONS = 40


class Evidence(Protocol):
    """One number of a sweep, or of a sweep against a baseline, with one-sided bounds."""

    @property
    def value(self) -> float:
        """The estimate, in `unit`."""

    @property
    def unit(self) -> str:
        """As it is shown: "share", "points", "px", "ratio", or the metric's own."""

    @property
    def n(self) -> int:
        """Number of images (of groups of images for a border ratio)."""

    @property
    def method(self) -> str:
        """How the bounds are made."""

    def bounds(self, alpha: float) -> tuple[float, float]:
        """The lower and the upper bound, each at level `alpha` (0 to 0.5) by itself; infinite where there is none."""


def p_at_most(evidence: Evidence, limit: float) -> float:
    """p-value against "the truth is at most `limit`": small if it is proven to be larger."""
    return _p(lambda alpha: evidence.bounds(alpha)[0] > limit)


def p_at_least(evidence: Evidence, limit: float) -> float:
    """p-value against "the truth is at least `limit`": small if it is proven to be smaller."""
    return _p(lambda alpha: evidence.bounds(alpha)[1] < limit)


def _p(rejects: Callable[[float], bool]) -> float:
    """The smallest level that rejects; 1 where that is above 50 %."""
    if not rejects(0.5):
        return 1.0
    if rejects(LEAST_P):
        return LEAST_P
    low, high = np.log(LEAST_P), np.log(0.5)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if rejects(float(np.exp(middle))) else (middle, high)
    return float(np.exp(high))


@dataclass(frozen=True, eq=False)
class Means:
    """The largest over groups of the smallest mean within each group; one mean by itself is one group of one.

    A largest mean is proven to be below a limit if each of them is, which needs no correction (an intersection-union
    test); it is proven to be above if one of them is, which is searched for, so that the bound is corrected for the
    number of groups (Bonferroni). Within a group it is the other way round.

    Attributes
    ----------
    columns
        (image, group, member) one value an image; NaN is left out.
    low, high
        What a value can be. In a bounded mean a fraction of an image is added at both ends (t^2 / 2 of them in the
        interval of a share, after Agresti and Coull; t^2 / 4 in that of a difference, as in
        `stats.paired_share_interval`), so that images of which none differs still leave a doubt. A mean without bounds
        has Student's interval.
    factor, unit
        Values times the factor are in that unit.
    unchanged
        (group, member) means that a sweep which is like its baseline would have: 0 unless given.

    Source
    ------
    R. L. Berger, Technometrics 24 (1982), for the largest of several means. A. Agresti and B. A. Coull, Am. Stat. 52
    (1998); D. G. Bonett and R. M. Price, J. Educ. Behav. Stat. 37 (2012). Their use for means of bounded numbers that
    are no shares is this project's.
    """

    columns: NDArray[np.floating]
    low: float
    high: float
    unit: str
    factor: float = 1.0
    unchanged: FloatArray | None = None

    @property
    def method(self) -> str:
        """Which interval, and over how many means."""
        kind = "adjusted Wald" if self.is_bounded else "Student t"
        count = self.columns.shape[1] * self.columns.shape[2]
        return f"{kind} over images" + (f", {count} means together" if count > 1 else "")

    @property
    def is_bounded(self) -> bool:
        """Whether a value has bounds."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def n(self) -> int:
        """Images of the column that has fewest."""
        return int(self._counts.min())

    @property
    def value(self) -> float:
        """The largest over groups of the smallest mean."""
        return self.factor * _largest_of_smallest(self._means)

    @cached_property
    def _counts(self) -> FloatArray:
        counts: FloatArray = np.count_nonzero(~np.isnan(self.columns), axis=0).astype(np.float64)
        return counts

    @cached_property
    def _means(self) -> FloatArray:
        means: FloatArray = np.nanmean(self.columns, axis=0, dtype=np.float64)
        return means

    @cached_property
    def _squares(self) -> FloatArray:
        """Sums of squared deviations from the means."""
        squares: FloatArray = np.nansum((self.columns - self._means) ** 2, axis=0, dtype=np.float64)
        return squares

    def bounds(self, alpha: float) -> tuple[float, float]:
        """See `Evidence`."""
        _, n_groups, n_members = self.columns.shape
        lower, _ = self._ends(alpha / n_groups)
        _, upper = self._ends(alpha / n_members)
        return self.factor * _largest_of_smallest(lower), self.factor * _largest_of_smallest(upper)

    def _ends(self, alpha: float) -> tuple[FloatArray, FloatArray]:
        """The bounds of each mean, (group, member)."""
        n, mean, squares = self._counts, self._means, self._squares
        t = t_value(alpha, np.maximum(n - 1, 1))
        if self.is_bounded:
            more = t**2 / (4 if self.low < 0 else 2)
            total = n + 2 * more
            middle = (n * mean + more * (self.low + self.high)) / total
            apart = n * (mean - middle) ** 2 + more * ((self.low - middle) ** 2 + (self.high - middle) ** 2)
            half = t * np.sqrt((squares + apart) / total / total)
            return np.maximum(middle - half, self.low), np.minimum(middle + half, self.high)
        half = t * np.sqrt(squares / np.maximum(n - 1, 1) / n)
        # Values that are all the same have no spread: the sign test's level is then the honest one.
        unknown = (n < 2) | ((squares == 0) & (0.5 ** (n - 1) > alpha))
        half = np.where(unknown, np.inf, half)
        return mean - half, mean + half

    def passing_at_no_change(self, limit: float, alpha: float) -> tuple[float, int]:
        """The chance that a sweep like its baseline is proven to be at most `limit`, and the images that make it 80 %.

        By signs drawn at random for the images: deviations of all columns keep their correlation. The number of images
        is for what is 0 without a change.
        """
        means, n_images = self._means, len(self.columns)
        centre = np.zeros_like(means) if self.unchanged is None else self.unchanged
        upper = self._ends(alpha / means.shape[1])[1] - means + centre
        apart = np.nan_to_num(self.columns - means).reshape(n_images, -1).astype(np.float32)
        draws = np.random.default_rng(0).integers(0, 2, (N_POWER_DRAWS, n_images)).astype(np.float32) * 2 - 1
        drawn = (draws @ apart).reshape(N_POWER_DRAWS, *means.shape) / self._counts
        found = self.factor * (drawn + upper).min(axis=2).max(axis=1)
        needed = n_images * (max(float(np.quantile(found, 0.8)), 0.0) / limit) ** 2
        return float((found < limit).mean()), max(2, int(np.ceil(needed)))


def _largest_of_smallest(means: FloatArray) -> float:
    return float(means.min(axis=1).max())


@dataclass(frozen=True)
class Stated:
    """A number with a standard error and its degrees of freedom; `exponential`: both are of its logarithm."""

    estimate: float
    standard_error: float
    degrees: int
    unit: str
    n: int
    method: str
    exponential: bool = False

    @property
    def value(self) -> float:
        """The estimate in `unit`."""
        return float(np.exp(self.estimate)) if self.exponential else self.estimate

    def bounds(self, alpha: float) -> tuple[float, float]:
        """See `Evidence`."""
        half = float(t_value(alpha, self.degrees)) * self.standard_error
        lo, hi = self.estimate - half, self.estimate + half
        return (float(np.exp(lo)), float(np.exp(hi))) if self.exponential else (lo, hi)


def means_of(
    values: NDArray[np.floating], bounds: tuple[float, float], unit: str, factor: float = 1.0, what: str = "it"
) -> Means | Skipped:
    """Evidence for a mean of one value an image, (image,), or the largest of several, (image, column)."""
    columns = values.reshape(len(values), -1, 1)
    if np.count_nonzero(~np.isnan(columns), axis=0).min() < 2:
        return Skipped(what, "fewer than two images have a value")
    return Means(columns, *bounds, unit, factor)
