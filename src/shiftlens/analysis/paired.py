"""Two arms on the same images: paired differences with intervals, and which of them hold when all are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy import special

from shiftlens.analysis.arm_scores import QUANTITIES, Quantity, Scores
from shiftlens.analysis.arrays import BoolArray, FloatArray, image_slices
from shiftlens.analysis.differences import Differences, difference_of
from shiftlens.analysis.estimated_maps import MapEstimate
from shiftlens.analysis.summary import FAMILY_ALPHA
from shiftlens.stats import (
    CONFIDENCE,
    Estimate,
    Skipped,
    benjamini_hochberg,
    max_t,
    mcnemar_exact,
    mean_estimate,
    paired_share_interval,
    z_value,
)
from shiftlens.tasks.task import Variable

POWER = 0.8
_Z_POWER = float(special.ndtri(POWER))
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
        Arm minus baseline with the 95 % interval of this difference alone, in points or the metric's unit (px^2 of the
        comparison's unit for "retained"). For the sides it is the difference of the sizes of the asymmetry: below 0 is
        more even.
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
class DifferenceMap(MapEstimate):
    """The metric of an arm minus that of the baseline under each shift: points of a share, else its unit.

    The band holds for all shifts of all arms together. Where the map's corrected test does not hold, it reaches 0
    everywhere.

    Attributes
    ----------
    tested
        (dy, dx) shifts that leave some of every net's picture.
    better, worse
        (dy, dx) tested, and the band excludes 0 on the metric's better or worse side.
    p_value, holm_p
        That any shift differs (Simes over exact McNemar tests, Student's of a number), and corrected for every test of
        the comparison.
    """

    tested: BoolArray = field(kw_only=True)
    better: BoolArray = field(kw_only=True)
    worse: BoolArray = field(kw_only=True)
    p_value: float = field(kw_only=True)
    holm_p: float = field(kw_only=True)

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
        In points, or the metric's unit.
    lower
        Lower end of the two-sided 95 % interval of what is gained, widened (Bonferroni) for the number of arms.
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


def disagreements(scores: Scores, base: Scores) -> Differences:
    """Compare two arms image by image under each shift."""
    found = Differences(scores.metric, len(scores.cells), scores.map.size)
    for s in image_slices(len(scores.cells), scores.map.size):
        a, b = (each.cells[s].reshape(-1, scores.map.size) for each in (scores, base))
        found.add(s, a.view(np.int8) - b.view(np.int8) if scores.metric.is_share else a - b)
    return found


def null_of(found: Differences, scores: Scores, base: Scores, tested: BoolArray) -> FloatArray:
    """Return the bootstrap distribution of the largest deviation over all shifts, in the interval's own scale."""
    if scores.replicates is None or base.replicates is None:
        raise ValueError("both arms need replicates of the same bootstrap samples")
    z = z_value()
    lo, hi = found.interval_of_mean(z)
    # The interval's own scale, with its added images: a shift with two disagreements must not set the critical value.
    scale = np.where(tested.ravel(), (hi - lo) / (2 * z), 0.0)
    differences = scores.replicates.resampled - base.replicates.resampled
    return max_t(differences, found.mean, scale)


def difference_map(
    found: Differences, tested: BoolArray, critical: float, holm_p: float, p_value: float
) -> DifferenceMap:
    """Put a map together once the critical value for all arms is known."""
    cells = (found.metric.factor * found.mean, *found.interval(z_value()), *found.interval(critical))
    value, lo, hi, band_lo, band_hi = (each.reshape(tested.shape) for each in cells)
    if holm_p > FAMILY_ALPHA:
        # One rule for sentence, picture and interval: what the corrected test leaves open, the band leaves open.
        band_lo, band_hi = np.minimum(band_lo, 0), np.maximum(band_hi, 0)
    higher, lower = tested & (band_lo > 0), tested & (band_hi < 0)
    better, worse = (higher, lower) if found.metric.sign > 0 else (lower, higher)
    method = "adjusted Wald" if found.metric.is_share else "Student t"
    return DifferenceMap(
        value,
        lo,
        hi,
        band_lo,
        band_hi,
        found.metric.difference_unit,
        found.n_images,
        f"{method}, simultaneous over all shifts of all sweeps (max-t bootstrap)",
        tested=tested,
        better=better,
        worse=worse,
        p_value=p_value,
        holm_p=holm_p,
    )


def critical_value(nulls: list[FloatArray], n_cells: int) -> float:
    """Return the critical value that holds for all shifts of all arms; never beyond Bonferroni's, never below one's.

    Of each arm one (resample,) of the same bootstrap samples, see `null_of`.
    """
    largest = np.max(nulls, axis=0)
    at_most = z_value(CONFIDENCE, n_cells * len(nulls))
    return float(np.clip(np.quantile(largest, CONFIDENCE), z_value(), at_most))


def map_p(found: Differences, tested: BoolArray) -> float:
    """Return Simes' p-value that any tested shift differs, over exact McNemar tests (Student's of a number)."""
    return float(benjamini_hochberg(found.p_values()[tested.ravel()]).min())


def estimates(scores: Scores, base: Scores) -> dict[Quantity, Estimate | Skipped]:
    """Return every paired difference of an arm with its own interval and p-value."""
    return {quantity: paired_estimate(scores, base, quantity) for quantity in QUANTITIES}


def paired_estimate(scores: Scores, base: Scores, quantity: Quantity) -> Estimate | Skipped:
    """Return arm minus baseline for one quantity: in points of a share, px^2 of an area, else in the metric's unit."""
    if quantity == "retained":
        return _areas(scores, base)
    a, b = scores.per_image[quantity], base.per_image[quantity]
    if isinstance(a, Skipped):
        return a
    if isinstance(b, Skipped):
        return b
    both = ~(np.isnan(a) | np.isnan(b))
    a, b, metric = a[both], b[both], scores.measured(quantity)
    if len(a) < 2:
        return Skipped(quantity, "one image has no interval")
    if quantity in ("at-rest", "worst") and metric.is_share:
        return _shares(a > 0.5, b > 0.5)
    if quantity in ("side-x", "side-y"):
        return _sizes(metric, a, b)
    return _mean(metric, a - b)


def _mean(metric: Variable, differences: FloatArray, n_arms: int = 1) -> Estimate:
    """Mean of paired differences; where no image differs, an interval all the same.

    Student's has no width then, and would promise that other images do not differ either. What has no bounds has none.
    """
    low, high = metric.difference_bounds
    if differences.any() or not np.isfinite(high):
        return difference_of(metric, differences, confidence=1 - (1 - CONFIDENCE) / n_arms)
    lo, hi = paired_share_interval(0, 0, len(differences), z_value(CONFIDENCE, n_arms))
    made = Estimate(0.0, float(lo) * -low, float(hi) * high, metric.unit, len(differences), NO_IMAGE_DIFFERS, 1.0)
    return made.scaled(metric.factor, metric.difference_unit)


def _shares(a: BoolArray, b: BoolArray) -> Estimate:
    gained, lost, n = int((a & ~b).sum()), int((b & ~a).sum()), len(a)
    lo, hi = paired_share_interval(gained, lost, n)
    p = float(mcnemar_exact(gained, lost))
    found = Estimate((gained - lost) / n, float(lo), float(hi), "share", n, "adjusted Wald; exact McNemar test", p)
    return found.scaled(100, "points")


def _sizes(metric: Variable, a: FloatArray, b: FloatArray) -> Estimate:
    """Return |mean a| - |mean b|.

    |A| < |B| means (B - A) (B + A) > 0: the p-value is the larger of the two tests' that A - B and A + B are 0, so that
    an asymmetry which has only turned round is no improvement.
    """
    signs = [1.0 if values.mean() >= 0 else -1.0 for values in (a, b)]
    size = _mean(metric, signs[0] * a - signs[1] * b)
    tests = [mean_estimate(values, metric.unit).p_value for values in (a - b, a + b)]
    if size.method == NO_IMAGE_DIFFERS:
        return size
    method = "Student t over images; tested by the difference and the sum of both asymmetries"
    return replace(size, method=method, p_value=max(1.0 if value is None else value for value in tests))


def _areas(scores: Scores, base: Scores) -> Estimate | Skipped:
    """Return the difference of the retained areas in px^2 of the comparison's unit, from the intervals of both.

    Each end lies as far from the difference as the ends of the two intervals say: their squares add, less what the
    areas have in common, by the correlation of both areas over the same bootstrap samples.

    Source
    ------
    G. Y. Zou and A. Donner, Stat. Med. 27 (2008), there for other parameters; its use for areas is this project's.
    """
    a, b = scores.retained, base.retained
    if isinstance(a, Skipped):
        return a
    if isinstance(b, Skipped):
        return b
    if a.at_least and b.at_least:
        return Skipped("difference of retained areas", "both regions touch the grid's edge: sweep further out")
    one, two = a.area, b.area
    value = one.value - two.value
    together = correlation(scores.areas, base.areas)
    lo = value - joint(one.value - one.lo, two.hi - two.value, together)
    hi = value + joint(one.hi - one.value, two.value - two.lo, together)
    # In units of the half width towards 0, which is 1.96 standard errors or more on either side.
    half = value - lo if value > 0 else hi - value
    p = float(2 * special.ndtr(-z_value() * abs(value) / half)) if half > 0 else float(value == 0)
    if a.at_least:
        hi, p = np.inf, p if value > 0 else 1.0
    if b.at_least:
        lo, p = -np.inf, p if value < 0 else 1.0
    at_least = a.at_least or b.at_least
    return Estimate(value, lo, hi, "px^2", one.n, "from the intervals of both areas", p, at_least)


def joint(a: float, b: float, correlation: float) -> float:
    """The length of the difference of two lengths that have a correlation: an angle between them."""
    return float(np.sqrt(max(a * a + b * b - 2 * correlation * a * b, 0.0)))


def correlation(a: FloatArray, b: FloatArray) -> float:
    """Correlation over samples; 0, which is cautious, where one of them never varies, and never below 0."""
    if len(a) < 2 or not (a.std() and b.std()):
        return 0.0
    return float(np.clip(np.corrcoef(a, b)[0, 1], 0.0, 1.0))


def judged(metric: Variable, quantity: Quantity, estimate: Estimate, holm_p: float, n_tests: int) -> Difference:
    """Return a difference with its verdict, given the correction for all tests.

    More area, more agreement and less asymmetry are better, whatever the metric.
    """
    verdict: Verdict = "undecided"
    if holm_p <= FAMILY_ALPHA and estimate.value:
        towards = {"side-x": -1, "side-y": -1, "retained": 1, "agreement": 1}.get(quantity, metric.sign)
        verdict = "better" if estimate.value * towards > 0 else "worse"
    return Difference(quantity, estimate, holm_p, verdict, detectable(estimate, n_tests))


def detectable(estimate: Estimate, n_tests: int) -> float:
    """Return the smallest true difference that is found with 80 % chance among `n_tests` corrected tests."""
    se = (estimate.hi - estimate.lo) / 2 / z_value()
    if not np.isfinite(se):
        return float("nan")
    return (z_value(1 - FAMILY_ALPHA, n_tests) + _Z_POWER) * se


def non_inferiority(
    scores: Scores, base: Scores, quantity: Quantity, margin: float, n_arms: int
) -> NonInferiority | Skipped:
    """Return whether an arm is no worse than the baseline by more than a margin, in points or the metric's unit."""
    a, b, metric = scores.values(quantity), base.values(quantity), scores.measured(quantity)
    gain = metric.sign * (a - b)
    gain = gain[~np.isnan(gain)]
    n, z = len(gain), z_value(CONFIDENCE, n_arms)
    if n < 2:
        return Skipped("non-inferiority", "one image has no interval")
    if quantity == "at-rest" and metric.is_share:
        ends = paired_share_interval(int((gain > 0).sum()), int((gain < 0).sum()), n, z)
        lower, upper = (metric.factor * float(end) for end in ends)
    else:
        found = _mean(metric, gain, n_arms)
        lower, upper = found.lo, found.hi
    half = (upper - lower) / 2
    needed = n * ((half + _Z_POWER * half / z) / margin) ** 2
    return NonInferiority(quantity, margin, lower, lower > -margin, max(1, int(np.ceil(needed))))
