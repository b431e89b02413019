"""Intervals, paired tests and corrections as vectorised functions of counts: nothing here knows what a shift is.

Every interval is for the images as the unit of replication: it says what other images of the same kind would give for
the same model. It says nothing about another training run (docs/metrics.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # it loads `scipy.stats`, which takes 50 MB, when that is first used
from numpy.typing import ArrayLike, NDArray

from shiftlens.errors import InputError

FloatArray = NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its unit and its interval.

    Attributes
    ----------
    value, lo, hi
        The estimate and its 95 % interval over images, in `unit`.
    unit
        "share" (0 to 1), "points" (percentage points), "nats", "px" or "px^2".
    n
        How many images stand behind it.
    method
        How the interval was made.
    p_value
        Of the two-sided test against no effect, where there is one; not yet corrected for other tests.
    at_least
        The truth may be larger than the grid can show: `value` and `hi` are lower limits.
    """

    value: float
    lo: float
    hi: float
    unit: str
    n: int
    method: str
    p_value: float | None = None
    at_least: bool = False

    def scaled(self, factor: float, unit: str) -> Estimate:
        """Return the same estimate in another unit (a negative factor turns the interval round)."""
        lo, hi = sorted((self.lo * factor, self.hi * factor))
        return Estimate(self.value * factor, lo, hi, unit, self.n, self.method, self.p_value, self.at_least)


@dataclass(frozen=True)
class Skipped:
    """What could not be measured, and why.

    Attributes
    ----------
    site
        The metric (or layer) that is missing.
    why
        One clause that a reader understands.
    """

    site: str
    why: str


def per_cent(share: float) -> str:
    """A share without an interval as text."""
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2g} %"


def z_value(confidence: float = CONFIDENCE, n_comparisons: int = 1) -> float:
    """Return the two-sided normal critical value, widened (Bonferroni) for `n_comparisons` looks."""
    if not 0 < confidence < 1:
        raise InputError(f"expected a confidence between 0 and 1, got {confidence}")
    return -float(scipy.special.ndtri((1 - confidence) / 2 / max(n_comparisons, 1)))


def t_value(tail: ArrayLike, degrees: ArrayLike) -> FloatArray:
    """Return the value that Student's t exceeds with probability `tail`, at most 1/2; infinite where `tail` is 0."""
    found: FloatArray = np.abs(scipy.special.stdtrit(np.asarray(degrees, np.float64), np.asarray(tail, np.float64)))
    return found


def wilson(successes: ArrayLike, n: ArrayLike, z: float | None = None) -> tuple[FloatArray, FloatArray]:
    """Return the Wilson score interval of a share, from 0 to 1; nan where n is 0.

    Counts are 0 <= successes <= n, of any broadcastable shapes; `z` is 1.96 (95 %) by default, a simultaneous band
    passes its own.

    Source
    ------
    E. B. Wilson, JASA 22 (1927).
    """
    k, m = np.asarray(successes, np.float64), np.asarray(n, np.float64)
    if np.any(k < 0) or np.any(k > m):
        raise InputError("expected 0 <= successes <= n in every cell, got a count outside")
    zz = (z_value() if z is None else z) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / m
        middle = (p + zz / (2 * m)) / (1 + zz / m)
        half = np.sqrt(zz * (p * (1 - p) / m + zz / (4 * m * m))) / (1 + zz / m)
        # At 0 and n the formula gives the end exactly; rounding must not push it past.
        lo, hi = np.where(k == 0, 0.0, middle - half), np.where(k == m, 1.0, middle + half)
    return np.where(m > 0, lo, np.nan), np.where(m > 0, hi, np.nan)


def mean_interval(
    total: ArrayLike, total_of_squares: ArrayLike, n: ArrayLike, confidence: float = CONFIDENCE
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return mean, lo, hi and standard error from sums over images of a value and its square (Student's t).

    `n` is the number of images, at least 2, or one for each sum; nan where an array's n is below 2.
    """
    m = np.asarray(n, np.float64)
    if m.ndim == 0 and m < 2:
        raise InputError(f"an interval of a mean needs at least 2 images, got {m:g}")
    m = np.where(m < 2, np.nan, m)
    mean = np.asarray(total, np.float64) / m
    variance = np.maximum(np.asarray(total_of_squares, np.float64) / m - mean**2, 0) * m / (m - 1)
    se = np.sqrt(variance / m)
    half = t_value((1 - confidence) / 2, m - 1) * se
    return mean, mean - half, mean + half, se


def mean_estimate(
    values: FloatArray, unit: str, *, bounds: tuple[float, float] = (-np.inf, np.inf), confidence: float = CONFIDENCE
) -> Estimate:
    """Return the mean of one value an image, (n,), with Student's t interval and the p-value against 0.

    NaN is left out; at least 2 values. The interval is cut at what the quantity can be, its bounds.
    """
    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    centred = x - x.mean() if len(x) else x
    # Sums around the mean: a mean of squares minus a squared mean loses digits for nearly constant values.
    _, _, _, se = mean_interval(0.0, float(centred @ centred), len(x))
    mean, error = float(x.mean()), float(se)
    half = float(t_value((1 - confidence) / 2, len(x) - 1)) * error
    p = float(t_p_value(mean, error, len(x)))
    lo, hi = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    return Estimate(mean, lo, hi, unit, len(x), "Student t over images", p)


def t_p_value(mean: ArrayLike, se: ArrayLike, n: ArrayLike) -> FloatArray:
    """Return the two-sided p-value of a mean against 0; where nothing varies, 1 for a zero mean, else 2^(1-n).

    A constant non-zero value has no standard error; the sign test's p-value is then the honest one. 1 where n is below
    2, so that there is none.
    """
    mean, se, m = np.broadcast_arrays(np.asarray(mean, float), np.asarray(se, float), np.asarray(n, float))
    t = np.divide(np.abs(mean), se, out=np.zeros_like(mean), where=se > 0)
    constant = np.where(mean == 0, 1.0, np.minimum(1.0, 2.0 ** (1 - m)))
    p: FloatArray = np.where(se > 0, 2 * scipy.special.stdtr(np.maximum(m - 1, 1), -t), constant)
    return np.where(np.isnan(mean) | np.isnan(se), 1.0, p)


def mcnemar_exact(b: ArrayLike, c: ArrayLike) -> FloatArray:
    """Return the exact two-sided McNemar p-value, min(1, 2 binom.cdf(min(b, c), b + c, 1/2)).

    `b`, `c` are the numbers of images right only under the first, only under the second condition.
    """
    bb, cc = np.asarray(b, np.int64), np.asarray(c, np.int64)
    if np.any(bb < 0) or np.any(cc < 0):
        raise InputError("expected counts of at least 0, got a negative count")
    p: FloatArray = np.minimum(1.0, 2 * scipy.stats.binom.cdf(np.minimum(bb, cc), bb + cc, 0.5))
    return p


def paired_share_interval(b: ArrayLike, c: ArrayLike, n: int, z: float | None = None) -> tuple[FloatArray, FloatArray]:
    """Return an interval for the difference of two paired shares, (b - c) / n.

    Adjusted Wald with z^2 / 4 images added to each kind of disagreement (one, at 95 %): holds its level down to
    b + c = 0, where the plain one has no width, and far out in the tails, where a simultaneous band lives. `b`, `c` are
    the numbers of images right only under the first, only under the second condition; `z` is 1.96 (95 %) by default.

    Source
    ------
    After D. G. Bonett and R. M. Price, J. Educ. Behav. Stat. 37 (2012); z^2 / 4 in place of their 1 is this project's.
    """
    zz = z_value() if z is None else z
    more = zz * zz / 4
    p, q = ((np.asarray(k, np.float64) + more) / (n + 2 * more) for k in (b, c))
    half = zz * np.sqrt((p + q - (p - q) ** 2) / (n + 2 * more))
    return np.maximum(p - q - half, -1.0), np.minimum(p - q + half, 1.0)


def benjamini_hochberg(p_values: ArrayLike) -> FloatArray:
    """Return Benjamini-Hochberg adjusted p-values, same shape; the smallest is Simes' p-value of the whole family."""
    p = np.asarray(p_values, np.float64)
    adjusted: FloatArray = scipy.stats.false_discovery_control(p.ravel(), method="bh").reshape(p.shape) if p.size else p
    return adjusted


def holm(p_values: ArrayLike) -> FloatArray:
    """Return Holm's adjusted p-values, (m,): those at most alpha hold together with family-wise error alpha."""
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1:
        raise InputError(f"expected one row of p-values, got shape {p.shape}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def resample_weights(index: NDArray[Any], n_resamples: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return how often each image is drawn in each bootstrap sample, shape (n_resamples, n).

    The counts belong to an image's `index` (its position in the source), not to its place in the array: the same images
    in another order give the same resamples. Two measurements of the same images share their weights, which keeps pairs
    together.
    """
    n = len(index)
    if n < 1 or n_resamples < 1:
        raise InputError(f"expected at least 1 image and 1 resample, got {n} and {n_resamples}")
    rng = np.random.default_rng(seed)
    rank = np.empty(n, np.int64)
    rank[np.argsort(index, kind="stable")] = np.arange(n)
    weights = np.empty((n_resamples, n), np.uint8)
    for row in weights:
        row[:] = np.bincount(rng.integers(0, n, n), minlength=n)[rank]
    return weights


def max_t(replicates: FloatArray, centre: FloatArray, se: FloatArray) -> FloatArray:
    """Return the bootstrap distribution of the largest absolute t over all columns, shape (n_resamples,).

    Its upper quantile is the critical value of a simultaneous band; it uses the columns' own correlation. Replicates
    are (n_resamples, m), centre and standard error (m,); columns whose standard error is 0 take no part.
    """
    use = np.flatnonzero(se > 0)
    out = np.zeros(len(replicates))
    if len(use):
        # A hundred samples at a time: no second copy of all the replicates.
        for start in range(0, len(out), 100):
            t = (replicates[start : start + 100, use] - centre[use]) / se[use]
            out[start : start + 100] = np.abs(t, out=t).max(axis=1)
    return out


def exceedance_p(null: FloatArray, statistic: float) -> float:
    """Return (1 + how many null values reach the statistic) / (1 + how many there are): never 0."""
    return float((1 + np.count_nonzero(null >= statistic)) / (1 + len(null)))
