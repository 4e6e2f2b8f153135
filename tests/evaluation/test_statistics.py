"""Intervals and tests against closed forms, published examples and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from robustode.errors import OptionError
from robustode.evaluation.statistics import (
    censored_median,
    clopper_pearson,
    mcnemar,
    median_difference,
    paired_difference,
    wilson,
    wilson_bounds,
)

INF = math.inf


# Newcombe, Statistics in Medicine 17, 857 (1998), table I, method 3
@pytest.mark.parametrize(
    ("k", "n", "lo", "hi"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_published(k, n, lo, hi):
    estimate = wilson(k, n)
    assert (estimate.value, round(estimate.lo, 4), round(estimate.hi, 4)) == (k / n, lo, hi)


@pytest.mark.parametrize("k", [0, 1, 7, 29, 30])
def test_intervals_agree_with_scipy(k):
    test = binomtest(k, 30)
    for ours, method in ((wilson(k, 30), "wilson"), (clopper_pearson(k, 30), "exact")):
        theirs = test.proportion_ci(method=method)
        assert (ours.lo, ours.hi) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_clopper_pearson_of_no_success_is_the_closed_form():
    assert clopper_pearson(0, 50).hi == pytest.approx(1 - 0.025 ** (1 / 50), rel=1e-9)
    assert clopper_pearson(0, 50).lo == 0.0


def test_interval_narrows_with_n_and_widens_with_the_level():
    widths = [wilson(n // 2, n).hi - wilson(n // 2, n).lo for n in (10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert wilson(5, 10, 0.99).hi > wilson(5, 10, 0.95).hi > wilson(5, 10, 0.5).hi


def test_wilson_of_nothing_and_of_the_impossible():
    assert wilson(0, 0).value is None
    for k, n in ((3, 2), (-1, 4)):
        with pytest.raises(OptionError, match="0 ≤ k ≤ n"):
            wilson(k, n)
        with pytest.raises(OptionError, match="0 ≤ k ≤ n"):
            clopper_pearson(k, n)
    with pytest.raises(OptionError, match="confidence level: expected between 0 and 1, got 95"):
        wilson(1, 2, 95)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.95])
def test_wilson_coverage(p):
    k = np.random.default_rng(0).binomial(100, p, 2000)
    lo, hi = wilson_bounds(k, 100)
    assert 0.92 < ((lo <= p) & (p <= hi)).mean() < 0.98


def test_clopper_pearson_never_covers_less_than_its_level():
    k = np.arange(31)
    bounds = [clopper_pearson(int(i), 30) for i in k]
    lo, hi = np.array([b.lo for b in bounds]), np.array([b.hi for b in bounds])
    for p in np.linspace(0.02, 0.98, 25):
        assert binom.pmf(k, 30, p)[(lo <= p) & (p <= hi)].sum() >= 0.95


def test_mcnemar_closed_forms():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 * 0.5**6)
    assert mcnemar(12, 2) == mcnemar(2, 12) == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert mcnemar(3, 11) == pytest.approx(binomtest(3, 14, 0.5).pvalue)


def test_mcnemar_is_valid_under_the_null():
    b = np.random.default_rng(1).binomial(40, 0.5, 2000)
    p = np.array([mcnemar(int(i), 40 - int(i)) for i in range(41)])[b]
    assert 0.005 < (p <= 0.05).mean() <= 0.05


def test_paired_difference_published():
    # Newcombe, Statistics in Medicine 17, 2635 (1998), the 2 × 2 table (36, 12, 2, 0), method 10
    estimate = paired_difference(36, 12, 2, 0)
    assert (estimate.value, round(estimate.lo, 4), round(estimate.hi, 4)) == (0.2, 0.0569, 0.3404)


def test_paired_difference_edges():
    assert paired_difference(0, 0, 0, 0).value is None
    same = paired_difference(70, 0, 0, 30)
    assert same.value == 0
    assert same.lo == pytest.approx(-same.hi)
    assert 0 < same.hi < 0.06
    opposite = paired_difference(0, 25, 0, 0)
    assert (opposite.value, opposite.hi) == (1.0, 1.0)
    assert opposite.lo > 0.7
    forward, backward = paired_difference(40, 20, 5, 35), paired_difference(40, 5, 20, 35)
    assert (forward.lo, forward.hi) == pytest.approx((-backward.hi, -backward.lo))
    unpaired = math.hypot(wilson(60, 100).value - wilson(60, 100).lo, wilson(45, 100).hi - 0.45)
    assert forward.value - forward.lo < unpaired  # positive correlation helps


def test_paired_difference_coverage():
    cells = np.array([0.55, 0.2, 0.08, 0.17])
    draws = np.random.default_rng(2).multinomial(100, cells, 2000)
    inside = [e.lo <= cells[1] - cells[2] <= e.hi for e in (paired_difference(*map(int, row)) for row in draws)]
    assert 0.93 < np.mean(inside) < 0.985


def test_median_is_given_only_if_fewer_than_half_are_censored():
    assert censored_median(np.array([3.0, 1, INF])).value == 3.0
    assert censored_median(np.array([1.0, 2, INF, INF])).value is None
    assert censored_median(np.array([1.0, 2, 3, INF])).value == 2.5
    assert censored_median(np.array([INF])).value is None
    assert censored_median(np.array([])).value is None


def test_median_interval_is_the_tabulated_order_statistics():
    # P[Bin(6, ½) ≤ 0] = 0.0156, P[Bin(10, ½) ≤ 1] = 0.0107, P[Bin(20, ½) ≤ 5] = 0.0207
    for n, rank in ((6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (100, 40)):
        estimate = censored_median(np.random.default_rng(n).permutation(np.arange(1.0, n + 1)))
        assert (estimate.lo, estimate.hi) == (rank, n + 1 - rank)
    five = censored_median(np.arange(1.0, 6))
    assert (five.value, five.lo, five.hi) == (3.0, None, None)


def test_median_interval_ends_may_be_censored():
    x = np.r_[np.arange(1.0, 13), [INF] * 8]
    estimate = censored_median(x)
    assert (estimate.value, estimate.lo, estimate.hi) == (10.5, 6.0, None)
    half = censored_median(np.r_[np.arange(1.0, 10), [INF] * 11])
    assert (half.value, half.lo, half.hi) == (None, 6.0, None)


def test_median_interval_coverage():
    x = np.random.default_rng(3).exponential(size=(2000, 50))
    inside = [e.lo <= math.log(2) <= e.hi for e in map(censored_median, x)]
    exact = 1 - 2 * binom.cdf(17, 50, 0.5)
    assert exact >= 0.95
    assert np.mean(inside) == pytest.approx(exact, abs=0.012)


@pytest.mark.parametrize("bad", [np.array([1.0, np.nan]), np.array([-1.0]), np.ones((2, 2))])
def test_distances_that_are_none_are_refused(bad):
    with pytest.raises(OptionError, match="distances: expected one row of numbers"):
        censored_median(bad)


def test_median_difference_of_a_constant_shift_is_exact():
    x = np.random.default_rng(4).exponential(size=101)
    estimate = median_difference(x + 0.25, x, np.random.default_rng(0))
    assert (estimate.value, estimate.lo, estimate.hi) == pytest.approx((0.25, 0.25, 0.25))


def test_median_difference_is_reproducible_and_antisymmetric():
    rng = np.random.default_rng(5)
    a, b = rng.exponential(size=80), rng.exponential(size=80)
    first = median_difference(a, b, np.random.default_rng(7))
    assert first == median_difference(a, b, np.random.default_rng(7))
    assert first != median_difference(a, b, np.random.default_rng(8))
    swapped = median_difference(b, a, np.random.default_rng(7))
    assert swapped.value == -first.value
    assert swapped.lo == pytest.approx(-first.hi, abs=0.02)
    assert first.lo < first.value < first.hi


def test_median_difference_with_censoring():
    finite, censored = np.linspace(1, 2, 40), np.r_[np.linspace(1, 2, 21), [INF] * 19]
    estimate = median_difference(censored, finite, np.random.default_rng(0))
    assert estimate.value == pytest.approx(2.0 - 1.5, abs=0.1)
    assert estimate.lo is not None
    assert estimate.hi is None
    lost = median_difference(np.full(9, INF), np.ones(9), np.random.default_rng(0))
    assert (lost.value, lost.lo, lost.hi) == (None, None, None)
    both = median_difference(np.full(9, INF), np.full(9, INF), np.random.default_rng(0))
    assert (both.value, both.lo, both.hi) == (None, None, None)


def test_median_difference_does_not_depend_on_the_block_size(monkeypatch):
    rng = np.random.default_rng(6)
    a, b = rng.exponential(size=64), rng.exponential(size=64)
    whole = median_difference(a, b, np.random.default_rng(1), resamples=500)
    monkeypatch.setattr("robustode.evaluation.statistics._BLOCK", 64 * 7)
    assert median_difference(a, b, np.random.default_rng(1), resamples=500) == whole


def test_median_difference_coverage():
    rng = np.random.default_rng(9)
    inside = []
    for _ in range(200):
        shared = rng.exponential(size=60)
        a, b = shared + rng.normal(0.5, 0.1, 60).clip(0), shared
        estimate = median_difference(a, b, rng, resamples=200)
        inside.append(estimate.lo <= 0.5 <= estimate.hi)
    assert 0.88 < np.mean(inside) <= 1.0


def test_median_difference_wants_pairs():
    with pytest.raises(OptionError, match="two arrays of one length ≥ 1, got 2 and 3"):
        median_difference(np.ones(2), np.ones(3), np.random.default_rng(0))
