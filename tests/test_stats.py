from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

import reference_metrics as ref
from shiftlens.errors import InputError
from shiftlens.stats import (
    Estimate,
    benjamini_hochberg,
    exceedance_p,
    holm,
    max_t,
    mcnemar_exact,
    mean_estimate,
    mean_interval,
    paired_share_interval,
    resample_weights,
    wilson,
    z_value,
)


@given(st.integers(1, 300), st.data())
def test_wilson_solves_its_own_equation(n, data):
    k = data.draw(st.integers(0, n))
    lo, hi = wilson(k, n)
    assert (float(lo), float(hi)) == pytest.approx(ref.wilson(k, n, ref.Z), abs=1e-9)
    assert 0 <= lo <= k / n <= hi <= 1


def test_wilson_is_statsmodels_on_arrays_and_nan_without_images():
    k = np.array([[0, 3], [17, 40]])
    lo, hi = wilson(k, 40)
    for index, count in np.ndenumerate(k):
        assert (lo[index], hi[index]) == pytest.approx(proportion_confint(count, 40, method="wilson"), abs=1e-12)
    assert np.isnan(wilson(0, 0)[0])
    with pytest.raises(InputError, match="expected 0 <= successes <= n"):
        wilson(5, 4)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=20))
def test_mcnemar_is_statsmodels(tables):
    b, c = np.array(tables).T
    ours = mcnemar_exact(b, c)
    for i, (x, y) in enumerate(tables):
        expected = mcnemar([[5, x], [y, 7]], exact=True).pvalue if x + y else 1.0
        assert ours[i] == pytest.approx(min(1.0, expected), abs=1e-9)
    assert np.array_equal(ours, mcnemar_exact(c, b))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_corrections_are_statsmodels_and_the_loop(p):
    assert holm(p) == pytest.approx(ref.holm(p), abs=1e-12)
    with patch("gc.collect"):  # it collects garbage at every call, of all tests before this one
        theirs = multipletests(p, method="holm")[1]
    assert holm(p) == pytest.approx(theirs, abs=1e-12)
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], abs=1e-12)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40))
def test_mean_estimate_is_students(values):
    estimate = mean_estimate(np.array(values), "nats")
    assert (estimate.value, estimate.lo, estimate.hi) == pytest.approx(ref.t_interval(values), abs=1e-9)
    if np.std(values) > 1e-6:
        assert estimate.p_value == pytest.approx(sps.ttest_1samp(values, 0).pvalue, abs=1e-9)
    sums = mean_interval(sum(values), sum(v * v for v in values), len(values))
    assert float(sums[0]) == pytest.approx(estimate.value, abs=1e-9)
    assert float(sums[1]) == pytest.approx(estimate.lo, abs=1e-5)


def test_a_constant_effect_has_the_sign_tests_p_value():
    assert mean_estimate(np.ones(3), "share").p_value == 0.25
    assert mean_estimate(np.zeros(3), "share").p_value == 1.0
    with pytest.raises(InputError, match="at least 2 images"):
        mean_estimate(np.ones(1), "share")


def test_paired_interval_has_width_without_disagreement_and_turns_with_its_sides():
    lo, hi = paired_share_interval(0, 0, 100)
    assert lo == pytest.approx(-hi)
    assert 0.01 < hi < 0.05
    one, other = paired_share_interval([9], [2], 100, 3.0), paired_share_interval([2], [9], 100, 3.0)
    assert one[0] == pytest.approx(-other[1])
    assert one[0] < 0.07 < one[1]


def test_scaling_by_a_negative_number_turns_the_interval_round():
    turned = Estimate(0.2, 0.1, 0.4, "share", 9, "m", 0.5).scaled(-100, "points")
    assert (turned.value, turned.lo, turned.hi, turned.unit, turned.p_value) == (-20, -40, -10, "points", 0.5)


def test_weights_belong_to_the_image_not_to_its_place():
    index = np.array([40, 7, 19, 3, 88])
    weights = resample_weights(index, 50, seed=3)
    assert weights.shape == (50, 5)
    assert (weights.sum(axis=1) == 5).all()
    order = np.array([3, 0, 4, 1, 2])
    assert np.array_equal(resample_weights(index[order], 50, seed=3), weights[:, order])
    assert not np.array_equal(resample_weights(index, 50, seed=4), weights)


def test_max_t_is_the_largest_and_leaves_out_what_never_varies():
    replicates = np.array([[1.0, 5.0, 0.0], [3.0, 5.0, -4.0]])
    assert max_t(replicates, np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 2.0])).tolist() == [0.0, 2.0]
    assert max_t(replicates, np.zeros(3), np.zeros(3)).tolist() == [0.0, 0.0]
    assert exceedance_p(np.array([1.0, 2.0, 3.0]), 2.0) == 0.75
    assert exceedance_p(np.array([1.0, 2.0, 3.0]), 9.0) == 0.25


def test_max_t_critical_value_lies_between_one_look_and_bonferroni():
    rng = np.random.default_rng(1)
    common, own = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 50))
    replicates = (common + own) / np.sqrt(2)
    crit = np.quantile(max_t(replicates, np.zeros(50), np.ones(50)), 0.95)
    assert z_value() + 0.3 < crit < z_value(n_comparisons=50)


@pytest.mark.parametrize("bad", [0.0, 1.0, 95.0])
def test_a_confidence_is_a_share(bad):
    with pytest.raises(InputError, match="between 0 and 1"):
        z_value(bad)
