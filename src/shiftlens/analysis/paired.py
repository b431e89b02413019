"""Two arms on the same images: paired differences with intervals, and which of them hold when all are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats as sps

from shiftlens.analysis.arm_scores import QUANTITIES, Quantity, Scores
from shiftlens.analysis.arms import Aligned
from shiftlens.analysis.arrays import BoolArray, IntArray, image_slices
from shiftlens.analysis.summary import FAMILY_ALPHA
from shiftlens.stats import (
    CONFIDENCE,
    Estimate,
    FloatArray,
    Skipped,
    benjamini_hochberg,
    max_t,
    mcnemar_exact,
    mean_estimate,
    paired_share_interval,
    z_value,
)

POWER = 0.8
"""Chance with which a difference of the detectable size would have been found."""

NO_IMAGE_DIFFERS = "no image differs; adjusted Wald"

Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Difference:
    """One quantity of an arm against the baseline, paired over the same images.

    Attributes
    ----------
    quantity
        Which; see `Scores`.
    estimate
        Arm minus baseline with the 95 % interval of this difference alone, in points (px^2 of the comparison's
        unit for "retained"). For the sides it is the difference of the sizes of the asymmetry: below 0 is more even.
        `at_least`: a retained region touches the grid's edge, so the truth may be further from 0.
    holm_p
        p-value corrected for every test of the comparison (Holm).
    verdict
        "better" or "worse" where that is at most 2 %, else "undecided". More agreement counts as better, and is not
        more accuracy.
    detectable
        The smallest true difference that would have been found with 80 % chance after that correction; nan where the
        grid ends before the region does.
    """

    quantity: Quantity
    estimate: Estimate
    holm_p: float
    verdict: Verdict
    detectable: float


@dataclass(frozen=True, eq=False)
class DifferenceMap:
    """Accuracy of an arm minus that of the baseline under each shift, in points.

    Attributes
    ----------
    value, lo, hi
        (dy, dx) paired difference and the 95 % interval of each shift by itself.
    band_lo, band_hi
        (dy, dx) wider: all shifts of all arms lie inside together with 95 %. For whoever searches the map.
    tested
        (dy, dx) shifts that leave some of every net's picture.
    better, worse
        (dy, dx) tested, and the band excludes 0.
    p_value, holm_p
        That any shift differs (Simes over exact McNemar tests), and corrected for every test of the comparison.
    n
        Number of images.
    """

    value: FloatArray
    lo: FloatArray
    hi: FloatArray
    band_lo: FloatArray
    band_hi: FloatArray
    tested: BoolArray
    better: BoolArray
    worse: BoolArray
    p_value: float
    holm_p: float
    n: int

    @property
    def holds(self) -> bool:
        """Whether any shift differs, corrected for every test of the comparison."""
        return self.holm_p <= FAMILY_ALPHA


@dataclass(frozen=True)
class NonInferiority:
    """Whether the arm is as good as the baseline, up to a margin.

    Attributes
    ----------
    quantity
        "at-rest" or "near".
    margin
        In points.
    lower
        Lower end in points of the two-sided 95 % interval, widened (Bonferroni) for the number of arms.
    holds
        It lies above minus the margin.
    n_needed
        About how many images would show it with 80 % chance if there were no difference.
    """

    quantity: Quantity
    margin: float
    lower: float
    holds: bool
    n_needed: int


@dataclass(frozen=True, eq=False)
class Counts:
    """Disagreements of two arms: right only under the arm, right only under the baseline, (dy, dx) each."""

    gained: IntArray
    lost: IntArray
    n: int


def disagreements(right: BoolArray, base: BoolArray) -> Counts:
    """Count the images on which two arms disagree, under each shift."""
    gained, lost = np.zeros(right.shape[1:], np.int64), np.zeros(right.shape[1:], np.int64)
    for s in image_slices(len(right), gained.size):
        gained += (right[s] & ~base[s]).sum(axis=0, dtype=np.int32)
        lost += (base[s] & ~right[s]).sum(axis=0, dtype=np.int32)
    return Counts(gained, lost, len(right))


def null_of(counts: Counts, scores: Scores, base: Scores, tested: BoolArray) -> FloatArray:
    """Return the bootstrap distribution of the largest deviation over all shifts, in the interval's own scale."""
    if scores.replicates is None or base.replicates is None:
        raise ValueError("both arms need replicates of the same bootstrap samples")
    z = z_value()
    lo, hi = paired_share_interval(counts.gained, counts.lost, counts.n, z)
    # The interval's own scale, with its added images: a shift with two disagreements must not set the critical value.
    scale = np.where(tested, (hi - lo) / (2 * z), 0.0).ravel()
    differences = scores.replicates.resampled - base.replicates.resampled
    return max_t(differences, (counts.gained - counts.lost).ravel() / counts.n, scale)


def difference_map(counts: Counts, tested: BoolArray, critical: float, holm_p: float, p_value: float) -> DifferenceMap:
    """Put a map together once the critical value for all arms is known."""
    lo, hi = paired_share_interval(counts.gained, counts.lost, counts.n)
    band_lo, band_hi = paired_share_interval(counts.gained, counts.lost, counts.n, critical)
    value = (counts.gained - counts.lost) / counts.n
    return DifferenceMap(
        100 * value,
        100 * lo,
        100 * hi,
        100 * band_lo,
        100 * band_hi,
        tested,
        tested & (band_lo > 0),
        tested & (band_hi < 0),
        p_value,
        holm_p,
        counts.n,
    )


def critical_value(nulls: list[FloatArray], n_cells: int) -> float:
    """Return the critical value that holds for all shifts of all arms; never beyond Bonferroni's, never below one's.

    Parameters
    ----------
    nulls
        One (resample,) a arm, of the same bootstrap samples.
    n_cells
        Number of tested shifts.
    """
    largest = np.max(nulls, axis=0)
    at_most = z_value(CONFIDENCE, n_cells * len(nulls))
    return float(np.clip(np.quantile(largest, CONFIDENCE), z_value(), at_most))


def map_p(counts: Counts, tested: BoolArray) -> float:
    """Return Simes' p-value that any tested shift differs, over exact McNemar tests."""
    p = mcnemar_exact(counts.gained[tested], counts.lost[tested])
    return float(benjamini_hochberg(p).min())


def estimates(scores: Scores, base: Scores, aligned: Aligned, which: int) -> dict[Quantity, Estimate | Skipped]:
    """Return every paired difference of an arm with its own interval and p-value."""
    out: dict[Quantity, Estimate | Skipped] = {}
    for quantity in QUANTITIES:
        out[quantity] = (
            retained_difference(scores, base, aligned, which)
            if quantity == "retained"
            else paired_estimate(scores, base, quantity)
        )
    return out


def paired_estimate(scores: Scores, base: Scores, quantity: Quantity) -> Estimate | Skipped:
    """Return arm minus baseline in points for a quantity that is a mean over images."""
    a, b = scores.per_image[quantity], base.per_image[quantity]
    if isinstance(a, Skipped) or isinstance(b, Skipped):
        return a if isinstance(a, Skipped) else b if isinstance(b, Skipped) else Skipped(quantity, "")
    if len(a) < 2:
        return Skipped(quantity, "one image has no interval")
    if quantity in ("at-rest", "worst"):
        return _shares(a > 0.5, b > 0.5)
    if quantity in ("side-x", "side-y"):
        return _sizes(a, b)
    return _mean(a - b).scaled(100, "points")


def _mean(differences: FloatArray, n_arms: int = 1) -> Estimate:
    """Mean of paired differences; where no image differs, an interval all the same.

    Student's has no width then, and would promise that other images do not differ either.
    """
    if differences.any():
        level = 1 - (1 - CONFIDENCE) / n_arms
        return mean_estimate(differences, "share", bounds=(-1, 1), confidence=level)
    n = len(differences)
    lo, hi = paired_share_interval(0, 0, n, z_value(CONFIDENCE, n_arms))
    return Estimate(0.0, float(lo), float(hi), "share", n, NO_IMAGE_DIFFERS, 1.0)


def _shares(a: BoolArray, b: BoolArray) -> Estimate:
    gained, lost, n = int((a & ~b).sum()), int((b & ~a).sum()), len(a)
    lo, hi = paired_share_interval(gained, lost, n)
    p = float(mcnemar_exact(gained, lost))
    found = Estimate((gained - lost) / n, float(lo), float(hi), "share", n, "adjusted Wald; exact McNemar test", p)
    return found.scaled(100, "points")


def _sizes(a: FloatArray, b: FloatArray) -> Estimate:
    """Return |mean a| - |mean b| in points.

    |A| < |B| means (B - A) (B + A) > 0: the p-value is the larger of the two tests' that A - B and A + B are 0, so that
    an asymmetry which has only turned round is no improvement.
    """
    signs = [1.0 if values.mean() >= 0 else -1.0 for values in (a, b)]
    size = _mean(signs[0] * a - signs[1] * b)
    tests = [mean_estimate(values, "share").p_value for values in (a - b, a + b)]
    p = max(1.0 if value is None else value for value in tests)
    method = "Student t over images; tested by the difference and the sum of both asymmetries"
    if size.method == NO_IMAGE_DIFFERS:
        return size.scaled(100, "points")
    return Estimate(size.value, size.lo, size.hi, "share", size.n, method, p).scaled(100, "points")


def retained_difference(scores: Scores, base: Scores, aligned: Aligned, which: int) -> Estimate | Skipped:
    """Return the difference of the retained areas in px^2 of the comparison's unit, from the intervals of both.

    Each end lies as far from the difference as the ends of the two intervals say: their squares add, less what the
    areas have in common, by the correlation of both areas over the same bootstrap samples.

    Source
    ------
    G. Y. Zou and A. Donner, Stat. Med. 27 (2008), there for other parameters; its use for areas is this project's.
    """
    a, b = scores.retained, base.retained
    if isinstance(a, Skipped) or isinstance(b, Skipped):
        return a if isinstance(a, Skipped) else b if isinstance(b, Skipped) else Skipped("retained", "")
    if a.at_least and b.at_least:
        return Skipped("difference of retained areas", "both regions touch the grid's edge: sweep further out")
    one, two = (each.area.scaled(aligned.arms[k].scale ** 2, "px^2") for each, k in ((a, which), (b, aligned.baseline)))
    value = one.value - two.value
    together = _correlation(scores.areas, base.areas)
    lo = value - _joint(one.value - one.lo, two.hi - two.value, together)
    hi = value + _joint(one.hi - one.value, two.value - two.lo, together)
    # In units of the half width towards 0, which is 1.96 standard errors or more on either side.
    half = value - lo if value > 0 else hi - value
    p = float(2 * sps.norm.sf(z_value() * abs(value) / half)) if half > 0 else float(value == 0)
    if a.at_least:
        hi, p = np.inf, p if value > 0 else 1.0
    if b.at_least:
        lo, p = -np.inf, p if value < 0 else 1.0
    at_least = a.at_least or b.at_least
    return Estimate(value, lo, hi, "px^2", one.n, "from the intervals of both areas", p, at_least)


def _joint(a: float, b: float, correlation: float) -> float:
    """The length of the difference of two lengths that have a correlation: an angle between them."""
    return float(np.sqrt(max(a * a + b * b - 2 * correlation * a * b, 0.0)))


def _correlation(a: FloatArray, b: FloatArray) -> float:
    """Correlation over samples; 0, which is cautious, where one of them never varies, and never below 0."""
    if len(a) < 2 or not (a.std() and b.std()):
        return 0.0
    return float(np.clip(np.corrcoef(a, b)[0, 1], 0.0, 1.0))


def judged(quantity: Quantity, estimate: Estimate, holm_p: float, n_tests: int) -> Difference:
    """Return a difference with its verdict, given the correction for all tests."""
    verdict: Verdict = "undecided"
    if holm_p <= FAMILY_ALPHA and estimate.value:
        gained = estimate.value < 0 if quantity in ("side-x", "side-y") else estimate.value > 0
        verdict = "better" if gained else "worse"
    return Difference(quantity, estimate, holm_p, verdict, detectable(estimate, n_tests))


def detectable(estimate: Estimate, n_tests: int) -> float:
    """Return the smallest true difference that is found with 80 % chance among `n_tests` corrected tests."""
    se = (estimate.hi - estimate.lo) / 2 / z_value()
    if not np.isfinite(se):
        return float("nan")
    return (z_value(1 - FAMILY_ALPHA, n_tests) + float(sps.norm.ppf(POWER))) * se


def non_inferiority(
    scores: Scores, base: Scores, quantity: Quantity, margin: float, n_arms: int
) -> NonInferiority | Skipped:
    """Return whether an arm is no worse than the baseline by more than a margin, in points."""
    a, b = scores.values(quantity), base.values(quantity)
    n = len(a)
    if n < 2:
        return Skipped("non-inferiority", "one image has no interval")
    z = z_value(CONFIDENCE, n_arms)
    if quantity == "at-rest":
        lo, hi = paired_share_interval(int((a > b).sum()), int((b > a).sum()), n, z)
        lower, half = 100 * float(lo), 50 * float(hi - lo)
    else:
        found = _mean(a - b, n_arms)
        lower, half = 100 * found.lo, 50 * (found.hi - found.lo)
    needed = n * ((half + float(sps.norm.ppf(POWER)) * half / z) / margin) ** 2
    return NonInferiority(quantity, margin, lower, lower > -margin, max(1, int(np.ceil(needed))))
