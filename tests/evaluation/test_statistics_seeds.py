"""Student's interval over seeds: closed forms, scipy, and the coverage that it claims."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from robustode.errors import OptionError
from robustode.evaluation.statistics_seeds import paired_t, t_interval


def test_two_values_are_the_cauchy_case():
    """With n = 2 the t quantile is tan(0.475 π), s/√2 is half the gap, and p = 1 − 2 atan(t)/π."""
    found = t_interval([1.0, 3.0])
    half = math.tan(0.475 * math.pi)
    assert (found.value, found.lo, found.hi) == pytest.approx((2.0, 2 - half, 2 + half), rel=1e-9)
    assert found.p == pytest.approx(1 - 2 * math.atan(2.0) / math.pi, rel=1e-9)
    assert found.n == 2


def test_paired_agrees_with_scipy():
    draws = np.random.default_rng(0).normal(size=(2, 5))
    theirs = ttest_rel(*draws)
    bounds = theirs.confidence_interval(0.9)
    ours = paired_t(*draws, level=0.9)
    assert (ours.lo, ours.hi, ours.p) == pytest.approx((bounds.low, bounds.high, theirs.pvalue), rel=1e-9)
    assert ours.value == pytest.approx((draws[0] - draws[1]).mean())


def test_coverage_of_five_seeds():
    draws = np.random.default_rng(1).normal(3.0, 2.0, (2000, 5))
    found = [t_interval(row) for row in draws]
    covered = np.mean([one.lo <= 3.0 <= one.hi for one in found])
    assert covered == pytest.approx(0.95, abs=0.015)
    rejected = np.mean([t_interval(row - 3.0).p < 0.05 for row in draws])
    assert rejected == pytest.approx(1 - covered, abs=1e-12)


def test_one_value_and_none_have_no_interval():
    one, none = t_interval([0.4]), t_interval([])
    assert (one.value, one.lo, one.hi, one.p, one.n) == (0.4, None, None, None, 1)
    assert (none.value, none.lo, none.hi, none.p, none.n) == (None, None, None, None, 0)


def test_equal_values():
    assert (t_interval([0.5, 0.5]).p, t_interval([0.5, 0.5]).hi) == (0.0, 0.5)
    assert t_interval([0.0, 0.0]).p == 1.0


def test_refused():
    with pytest.raises(OptionError, match="expected one row of finite numbers"):
        t_interval([0.1, math.inf])
    with pytest.raises(OptionError, match="two rows of one length"):
        paired_t([0.1, 0.2], [0.1])
