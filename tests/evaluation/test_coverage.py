"""How often intervals cover the truth and tests reject it: exact sums, and simulation with its Monte Carlo error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from robustode.errors import OptionError
from robustode.evaluation.statistics import (
    Estimate,
    censored_median,
    clopper_pearson,
    holm,
    mcnemar,
    median_difference,
    paired_difference,
    wilson_bounds,
)

INF = math.inf
LEVEL = 0.95


def error(n: int, share: float = LEVEL) -> float:
    """Three standard errors of a share simulated n times."""
    return 3 * math.sqrt(share * (1 - share) / n)


def covers(estimate: Estimate, truth: float) -> bool:
    """Whether the interval has the truth in it; an upper end that is None is unlimited, a lower one is censored."""
    lo = INF if estimate.lo is None else estimate.lo
    return lo <= truth <= (INF if estimate.hi is None else estimate.hi)


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_wilson_covers_its_level_on_average_over_p(n):
    """Exact: the sum of the binomial weights of the k whose interval has p, averaged over p uniform in (0, 1)."""
    k = np.arange(n + 1)
    lo, hi = wilson_bounds(k, n)
    p = (np.arange(2000) + 0.5) / 2000
    weights = binom.pmf(k[None], n, p[:, None])
    coverage = (weights * ((lo <= p[:, None]) & (p[:, None] <= hi))).sum(1)
    assert coverage.mean() == pytest.approx(LEVEL, abs=0.005)
    middle = (p > 0.1) & (p < 0.9)
    assert coverage[middle].min() > 0.91


@pytest.mark.parametrize("n", [8, 40, 300])
def test_clopper_pearson_is_never_below_its_level_not_even_beside_its_ends(n):
    """Coverage jumps at the ends of the intervals: the least value lies beside one of them, so all are looked at."""
    bounds = [clopper_pearson(int(i), n) for i in range(n + 1)]
    lo, hi = np.array([b.lo for b in bounds]), np.array([b.hi for b in bounds])
    ends = np.r_[lo, hi]
    p = np.r_[ends - 1e-9, ends + 1e-9, np.linspace(0, 1, 101)].clip(0, 1)
    weights = binom.pmf(np.arange(n + 1)[None], n, p[:, None])
    coverage = (weights * ((lo <= p[:, None]) & (p[:, None] <= hi))).sum(1)
    assert coverage.min() >= LEVEL - 1e-9
    assert coverage.min() < 0.97  # it is an interval, not everything


@pytest.mark.parametrize("censored", [0.2, 0.45, 0.49])
def test_the_censored_median_covers_where_distances_are_cut_off(censored):
    """Exponential distances, +∞ beyond the quantile 1 − c: the coverage is that of the order statistics, exactly."""
    n, repeats = 60, 3000
    x = np.random.default_rng(0).exponential(size=(repeats, n))
    x[x > -math.log(censored)] = INF
    rank = next(r for r in range(n) if binom.cdf(r, n, 0.5) > 0.025)  # the largest with P[Bin ≤ rank − 1] ≤ 0.025
    exact = 1 - 2 * binom.cdf(rank - 1, n, 0.5)
    share = np.mean([covers(censored_median(row), math.log(2)) for row in x])
    assert exact >= LEVEL
    assert share == pytest.approx(exact, abs=error(repeats, exact))


def test_the_censored_median_covers_a_median_that_is_infinite_and_one_that_is_zero():
    """60 % unbroken: the median is +∞; 60 % misclassified: it is 0; ties can only raise the coverage."""
    rng = np.random.default_rng(1)
    x = rng.exponential(size=(2000, 50))
    unbroken = np.where(rng.random(x.shape) < 0.6, INF, x)
    wrong = np.where(rng.random(x.shape) < 0.6, 0.0, x)
    assert np.mean([estimate.hi is None for estimate in map(censored_median, unbroken)]) > LEVEL
    assert np.mean([covers(estimate, 0.0) for estimate in map(censored_median, wrong)]) > LEVEL
    assert np.mean([estimate.value is None for estimate in map(censored_median, unbroken)]) > 0.9


@pytest.mark.parametrize(("n", "cut"), [(100, INF), (100, 1.2), (400, 1.2)])
def test_the_paired_bootstrap_of_medians_covers_its_level(n, cut):
    """Distances 1.4 E and E' of correlated exponentials, +∞ beyond `cut`: medians differ by 0.4 log 2.

    500 samples of pairs: the simulated share has a standard error of 0.01.
    """
    rng, repeats = np.random.default_rng(2), 500
    inside = []
    for _ in range(repeats):
        shared, own = rng.normal(size=n), rng.normal(size=(2, n))
        first, second = (-np.log(_normal_tail((shared + part) / math.sqrt(2))) for part in own)
        pair = [np.where(d > cut, INF, d) for d in (1.4 * first, second)]
        inside.append(covers(median_difference(*pair, rng, resamples=400), 0.4 * math.log(2)))
    assert abs(np.mean(inside) - LEVEL) < error(repeats)


def _normal_tail(z: np.ndarray) -> np.ndarray:
    from scipy.stats import norm

    return norm.sf(z)


@pytest.mark.parametrize(
    ("cells", "n"),
    [
        ((0.6, 0.1, 0.1, 0.2), 60),
        ((0.85, 0.1, 0.01, 0.04), 60),
        ((0.1, 0.4, 0.3, 0.2), 200),
        ((0.9, 0.05, 0.05, 0), 40),
    ],
)
def test_the_difference_of_paired_proportions_covers_its_level(cells, n):
    """Newcombe's method is not exact: 2 points below the level are allowed it, as in his own tables."""
    repeats = 2000
    draws = np.random.default_rng(3).multinomial(n, cells, repeats)
    estimates = [paired_difference(*map(int, row)) for row in draws]
    share = np.mean([covers(estimate, cells[1] - cells[2]) for estimate in estimates])
    assert share > LEVEL - 0.02 - error(repeats)


def test_holm_closed_form():
    # p = 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made monotone
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]).tolist() == pytest.approx([0.8, 0.9])
    assert holm([0.7, 0.6]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []
    assert holm([0.01, 0.01, 0.01]).tolist() == pytest.approx([0.03] * 3)


def test_holm_is_between_no_correction_and_bonferroni():
    p = np.random.default_rng(4).random(30) ** 3
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, 30 * p)).all()
    assert (np.diff(corrected[np.argsort(p)]) >= 0).all()


@pytest.mark.parametrize("bad", [[0.1, math.nan], [-0.1], [1.1], [[0.1]]])
def test_holm_refuses_what_is_no_p_value(bad):
    with pytest.raises(OptionError, match=r"p-values: expected one row of numbers in \[0, 1\], got"):
        holm(bad)


@pytest.mark.parametrize("true", [12, 8])
def test_holm_keeps_the_error_of_the_family(true):
    """12 exact McNemar tests of which `true` have nothing to find; without correction a third of the families err."""
    rng, repeats, tests, n = np.random.default_rng(5), 3000, 12, 120
    share = np.r_[np.full(true, 0.5), np.full(tests - true, 0.75)]
    first = rng.binomial(n, share, (repeats, tests))
    table = np.array([mcnemar(k, n - k) for k in range(n + 1)])
    raw = table[first]
    corrected = np.array([holm(row) for row in raw])
    wrong = (corrected[:, :true] <= 0.05).any(1).mean()
    assert wrong <= 0.05 + error(repeats, 0.05)
    assert (raw[:, :true] <= 0.05).any(1).mean() > 0.2
    if true < tests:
        assert (corrected[:, true:] <= 0.05).mean() > 0.9  # and it finds what is there


def test_holm_keeps_it_for_tests_that_depend_on_each_other():
    """The same samples at eight ε, as in a table of two models: nested, so that the tests are far from independent."""
    rng, repeats = np.random.default_rng(6), 1500
    radii = np.linspace(0.2, 1.6, 8)
    wrong = 0
    for _ in range(repeats):
        one, two = rng.exponential(size=(2, 80))
        p = [mcnemar(int(((one > e) & (two <= e)).sum()), int(((one <= e) & (two > e)).sum())) for e in radii]
        wrong += bool((holm(p) <= 0.05).any())
    assert wrong / repeats <= 0.05 + error(repeats, 0.05)
