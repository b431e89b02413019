"""Intervals and tests over training runs: the run is the unit, pairs share a seed, Holm corrects over the contrasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize
from scipy import stats as sps

from shiftlens.stats import FloatArray, Skipped, holm, mean_interval, t_p_value
from shiftlens.studies.study_file import Contrast

ALPHA = 0.05
POWER = 0.8

Verdict = Literal["confirmed", "refuted", "undecided"]


@dataclass(frozen=True, eq=False)
class OverRuns:
    """Means over runs with their 95 % t intervals, and p-values against a bound; NaN where fewer than 2 runs are there.

    All have the shape of the values without their last axis.
    """

    mean: FloatArray
    lo: FloatArray
    hi: FloatArray
    se: FloatArray
    n: FloatArray
    p_value: FloatArray


def over_runs(values: FloatArray, bound: float = 0.0, scale: float = 0.0) -> OverRuns:
    """Return means, intervals and p-values of values [..., run]; NaN stands for a run that is not there.

    `scale` is the size of the numbers that the values are differences of: what is smaller than 1e-12 of it, or of the
    values, is rounding. Runs that differ by rounding only are equal: their p-value is the sign test's, at least
    2^(1 - n), since they say nothing of how far runs spread.
    """
    there = ~np.isnan(values)
    n = there.sum(-1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, values, 0).sum(-1) / n
    rounding = 1e-12 * np.maximum(np.where(there, np.abs(values), 0).max(-1, initial=0), max(scale, abs(bound)))
    around = np.where(there, values - mean[..., None], 0)
    around = np.where(np.abs(around) <= rounding[..., None], 0, around)
    above = np.where(np.abs(mean - bound) <= rounding, 0, mean - bound)
    enough = np.where(n < 2, np.nan, n)
    # Sums around the mean lose no digits where runs differ little.
    _, low, high, se = mean_interval(np.zeros(mean.shape), np.square(around).sum(-1), enough)
    p = np.where(n < 2, np.nan, t_p_value(above, se, n))
    return OverRuns(mean, mean + low, mean + high, se, n, p)


def detectable(se: float, n: int, n_tests: int) -> float:
    """Return the smallest true distance from the bound that `n_tests` corrected t-tests find with 80 % chance.

    `se` is the standard error over `n` >= 2 runs, taken for the true one; corrected as the first step of Holm's is.
    NaN where it is 0: equal runs tell of no distance.
    """
    critical = float(sps.t.isf(ALPHA / 2 / n_tests, n - 1))

    def lacking(distance: float) -> float:
        return float(sps.nct.sf(critical, n - 1, distance)) - POWER

    if se == 0:
        return float("nan")
    top = critical + 1.0
    while lacking(top) < 0:
        top *= 2
    return se * float(optimize.brentq(lacking, 0.0, top))


@dataclass(frozen=True)
class ContrastResult:
    """One contrast with what the runs say of it.

    Attributes
    ----------
    contrast
        What was asked.
    estimate, lo, hi
        Mean over seeds and its 95 % interval (t, not corrected), in `unit`.
    n
        Seeds behind it.
    p_value, holm_p
        Two-sided against the contrast's bound: by itself, and corrected over all contrasts.
    verdict
        "confirmed": on the expected side of the bound; "refuted": on the other side; else "undecided".
    detectable
        The distance from the bound that would have been found with 80 % chance; NaN where all runs are equal.
    unit
        Of all of them.
    """

    contrast: Contrast
    estimate: float
    lo: float
    hi: float
    n: int
    p_value: float
    holm_p: float
    verdict: Verdict
    detectable: float
    unit: str = ""


def verdicts(estimate: FloatArray, holm_p: FloatArray, bound: FloatArray, above: FloatArray) -> FloatArray:
    """Return 1 (confirmed), -1 (refuted) or 0 (undecided) of each contrast; `above` is 1 or -1, the side expected."""
    found = np.nan_to_num(holm_p, nan=1.0) <= ALPHA
    return np.where(found, np.sign(estimate - bound) * above, 0.0)


def contrast_results(
    contrasts: Sequence[Contrast], values: Mapping[tuple[str, str], FloatArray], units: Mapping[str, str]
) -> list[ContrastResult | Skipped]:
    """Test every contrast.

    Parameters
    ----------
    contrasts
        What is asked.
    values
        By (arm, measure): one value a seed, NaN where the run failed or is missing.
    units
        Of each contrast, by name.

    Returns
    -------
    list
        In order; `Skipped` where fewer than 2 seeds have both runs: there is no interval over runs.
    """
    found = []
    for each in contrasts:
        sample = values[each.arm, each.measure]
        scale = float(np.nan_to_num(np.abs(sample)).max(initial=0))
        if each.is_paired:
            sample = sample - values[each.against or each.arm, each.against_measure or each.measure]
        found.append(over_runs(sample, each.bound, scale))
    measured = [each for each in found if each.n >= 2]
    corrected = iter(holm(np.array([float(each.p_value) for each in measured])).tolist())
    words: dict[int, Verdict] = {1: "confirmed", -1: "refuted", 0: "undecided"}
    out: list[ContrastResult | Skipped] = []
    for each, made in zip(contrasts, found, strict=True):
        n = int(made.n)
        if n < 2:
            seeds = "no seed has" if n == 0 else "one seed has"
            out.append(Skipped(each.name, f"{seeds} the runs; an interval over runs needs at least 2 seeds"))
            continue
        holm_p = next(corrected)
        side = np.array(1.0 if each.expect == "above" else -1.0)
        verdict = verdicts(made.mean, np.array(holm_p), np.array(each.bound), side)
        out.append(
            ContrastResult(
                contrast=each,
                estimate=float(made.mean),
                lo=float(made.lo),
                hi=float(made.hi),
                n=n,
                p_value=float(made.p_value),
                holm_p=holm_p,
                verdict=words[int(verdict)],
                detectable=detectable(float(made.se), n, len(measured)),
                unit=units[each.name],
            )
        )
    return out


def claim_verdict(found: Sequence[ContrastResult | Skipped], needs: str) -> Verdict:
    """Return what several contrasts say of one claim: all must be confirmed, or any; refuted likewise the other way."""
    each = ["undecided" if isinstance(one, Skipped) else one.verdict for one in found]
    if not each:
        return "undecided"
    confirm, refute = (all, any) if needs == "all" else (any, all)
    if confirm(one == "confirmed" for one in each):
        return "confirmed"
    return "refuted" if refute(one == "refuted" for one in each) else "undecided"
