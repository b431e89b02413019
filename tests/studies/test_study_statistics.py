"""Intervals and verdicts over runs: planted truths, and statsmodels as the independent computation."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from shiftlens.stats import Skipped, holm
from shiftlens.studies.study_file import Contrast
from shiftlens.studies.study_result import contrast_row
from shiftlens.studies.study_statistics import (
    ContrastResult,
    claim_verdict,
    contrast_results,
    detectable,
    over_runs,
    verdicts,
)

N_SEEDS = 5
N_STUDIES = 20_000


def simulated(effects: list[float], rng: np.random.Generator) -> np.ndarray:
    """Differences (study, contrast, seed): arms share a seed's luck and each run has its own."""
    shape = (N_STUDIES, len(effects), N_SEEDS)
    luck, own, other = rng.normal(0, 2.0, shape), rng.normal(0, 0.5, shape), rng.normal(0, 0.5, shape)
    return (np.array(effects)[:, None] + luck + own) - (luck + other)


def test_intervals_over_runs_hold_a_planted_difference_in_95_of_100_studies() -> None:
    for effect in (0.0, 1.3):
        made = over_runs(simulated([effect], np.random.default_rng(1)))
        assert abs(np.mean((made.lo <= effect) & (effect <= made.hi)) - 0.95) < 0.01


def test_verdicts_on_planted_truths_err_in_at_most_5_of_100_studies() -> None:
    # Nothing, something below the bound, something above it: a verdict errs where it names the wrong side.
    effects = [0.0, 0.0, 0.0, -2.0, 2.0, 0.3]
    bounds = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.3])
    above = np.array([1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
    samples = simulated(effects, np.random.default_rng(2))
    made = over_runs(samples - bounds[:, None])
    p = np.array([holm(row) for row in made.p_value])
    said = verdicts(made.mean + bounds, p, bounds, above)
    truth = np.sign(np.array(effects) - bounds) * above
    wrong = (said != 0) & (said != truth)
    assert wrong.any(axis=1).mean() <= 0.055
    assert (said[:, 4] == 1).mean() > 0.5
    assert (said[:, 3] == -1).mean() > 0.5


def test_against_statsmodels() -> None:
    values = np.random.default_rng(3).normal(1.0, 1.0, (4, 7))
    values[2, 3:5] = np.nan
    made = over_runs(values, bound=0.4)
    for k, row in enumerate(values):
        reference = DescrStatsW(row[~np.isnan(row)])
        assert made.mean[k] == pytest.approx(reference.mean)
        assert (made.lo[k], made.hi[k]) == pytest.approx(reference.tconfint_mean())
        assert made.p_value[k] == pytest.approx(reference.ttest_mean(0.4)[1])
    found = detectable(se=0.5 / np.sqrt(6), n=6, n_tests=4)
    assert TTestPower().power(found / 0.5, 6, 0.05 / 4) == pytest.approx(0.8, abs=1e-6)


def contrast(**about: object) -> Contrast:
    return Contrast.model_validate({"name": "c", "arm": "a", "measure": "m", "against": "b"} | about)


def test_pairs_share_a_seed_and_a_missing_run_takes_its_pair_away() -> None:
    a, b = np.array([3.0, 5.1, np.nan, 7.0]), np.array([1.0, 3.0, 0.0, 5.1])
    [made] = contrast_results([contrast()], {("a", "m"): a, ("b", "m"): b}, {"c": "points"})
    assert isinstance(made, ContrastResult)
    assert (made.n, made.estimate, made.verdict) == (3, pytest.approx(2.0), "confirmed")


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"expect": "above"}, "refuted"),
        ({"expect": "below"}, "confirmed"),
        ({"margin": 0.5}, "confirmed"),
        ({"margin": 0.05}, "refuted"),
        ({"expect": "above", "than": -0.2}, "undecided"),
    ],
)
def test_what_is_expected_decides_what_is_confirmed(about: dict[str, object], expected: str) -> None:
    a = np.array([-0.21, -0.18, -0.2, -0.22, -0.2])  # less by 0.2
    [made] = contrast_results([contrast(**about)], {("a", "m"): a, ("b", "m"): np.zeros(5)}, {"c": ""})
    assert isinstance(made, ContrastResult)
    assert made.verdict == expected


@pytest.mark.parametrize(("less", "p_value"), [(0.0, 1.0), (0.025, 0.25)])
def test_runs_that_differ_by_rounding_only_are_equal_and_decide_nothing(less: float, p_value: float) -> None:
    a = np.array([0.525, 0.425, 0.7])  # as shares of 40 images: a - (a - 0.025) is not 0.025 to the last bit
    b = np.array([(k + 0.1) - 0.1 - less for k in a])
    assert np.ptp(a - b) > 0
    [made] = contrast_results([contrast()], {("a", "m"): a, ("b", "m"): b}, {"c": "points"})
    assert isinstance(made, ContrastResult)
    assert (made.p_value, made.verdict) == (p_value, "undecided")
    assert np.isnan(made.detectable)
    assert contrast_row(made)[-1] == ""


def test_one_seed_has_no_interval_and_says_so() -> None:
    one = np.array([1.0])
    [made] = contrast_results([contrast()], {("a", "m"): one, ("b", "m"): one}, {"c": ""})
    assert isinstance(made, Skipped)
    assert "at least 2 seeds" in made.why
    assert np.isnan(over_runs(one).lo)
    assert claim_verdict([made], "all") == "undecided"
