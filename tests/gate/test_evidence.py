"""Bounds of one number, against slow computations and counts over simulated images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as sps

from shiftlens.gate.evidence import LEAST_P, Means, Stated, means_of, p_at_least, p_at_most
from shiftlens.stats import Skipped, paired_share_interval


def means(values, low, high, **how):
    found = means_of(np.asarray(values, np.float64), (low, high), "share", **how)
    assert isinstance(found, Means)
    return found


def test_a_share_has_the_interval_with_images_added_to_either_side() -> None:
    values = np.r_[np.ones(37), np.zeros(13)]
    t = sps.t.isf(0.02, 49)
    n = 50 + t**2
    share = (37 + t**2 / 2) / n
    half = t * np.sqrt(share * (1 - share) / n)
    assert means(values, 0, 1).bounds(0.02) == pytest.approx((share - half, share + half))


def test_a_difference_of_shares_has_the_interval_of_paired_shares() -> None:
    values = np.r_[np.ones(9), -np.ones(4), np.zeros(187)]
    lo, hi = paired_share_interval(9, 4, 200, float(sps.t.isf(0.03, 199)))
    assert means(values, -1, 1).bounds(0.03) == pytest.approx((float(lo), float(hi)), abs=1e-12)


def test_a_mean_without_bounds_has_students_interval() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    lo, hi = means(values, 0, np.inf).bounds(0.05)
    half = sps.t.isf(0.05, 39) * values.std(ddof=1) / np.sqrt(40)
    assert (lo, hi) == pytest.approx((values.mean() - half, values.mean() + half))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, np.inf)])
def test_images_that_are_all_alike_leave_a_doubt(low: float, high: float) -> None:
    found = means(np.ones(4), low, high)
    assert p_at_most(found, 0.99) > 0.05  # four images that agree prove nothing
    assert p_at_most(means(np.ones(2000), low, high), 0.9) < 0.05


def test_a_p_value_is_the_level_at_which_the_bound_reaches_the_limit() -> None:
    found = means(np.random.default_rng(1).normal(0.3, 1, 200), -np.inf, np.inf)
    p = p_at_most(found, 0.1)
    assert 1e-4 < p < 0.5
    assert found.bounds(p)[0] == pytest.approx(0.1, abs=1e-6)
    assert p == pytest.approx(float(sps.ttest_1samp(found.columns[:, 0, 0], 0.1, alternative="greater").pvalue))
    assert p_at_least(found, 0.1) == 1.0
    assert p_at_most(found, -3) == LEAST_P


def test_values_that_an_image_lacks_are_left_out() -> None:
    values = np.r_[np.random.default_rng(2).uniform(size=30), np.full(5, np.nan)]
    assert means(values, 0, 1).bounds(0.05) == pytest.approx(means(values[:30], 0, 1).bounds(0.05))
    assert means(values, 0, 1).n == 30
    assert isinstance(means_of(np.array([1.0, np.nan]), (0, 1), "share"), Skipped)


def test_the_largest_of_several_means_is_below_a_limit_if_each_is_and_above_it_if_one_is_clearly() -> None:
    rng = np.random.default_rng(3)
    columns = rng.normal([0.0, 0.5, 0.2], 1.0, (400, 3))
    together = means(columns, -np.inf, np.inf)
    alone = [means(column, -np.inf, np.inf) for column in columns.T]
    assert together.value == pytest.approx(columns.mean(axis=0).max())
    assert p_at_least(together, 0.7) == pytest.approx(max(p_at_least(each, 0.7) for each in alone), rel=1e-6)
    assert p_at_most(together, 0.3) == pytest.approx(3 * min(p_at_most(each, 0.3) for each in alone), rel=1e-6)


def test_the_chance_to_pass_is_what_simulation_says_and_the_images_needed_make_it_80_per_cent() -> None:
    rng = np.random.default_rng(4)

    def passing(n: int, draws: int = 400) -> float:
        wins = [
            means(rng.choice([-1, 0, 1], n, p=[0.04, 0.92, 0.04]), -1, 1).bounds(0.05)[1] < 0.03 for _ in range(draws)
        ]
        return float(np.mean(wins))

    found = means(rng.choice([-1, 0, 1], 400, p=[0.04, 0.92, 0.04]), -1, 1)
    power, needed = found.passing_at_no_change(0.03, 0.05)
    assert power == pytest.approx(passing(400), abs=0.1)
    assert passing(needed) == pytest.approx(0.8, abs=0.1)


def test_a_ratio_is_bounded_on_its_logarithm() -> None:
    found = Stated(np.log(2.0), 0.1, 9, "ratio", 10, "", exponential=True)
    lo, hi = found.bounds(0.05)
    assert found.value == pytest.approx(2.0)
    assert lo * hi == pytest.approx(4.0)
