"""Intervals and tests for accuracies and censored distances; every interval is about the sampling of test points.

None stands for "no finite value": a median of which half or more is censored, a bound that is unlimited.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from robustode.errors import OptionError

LEVEL = 0.95
_BLOCK = 1 << 20  # resampled values held at once


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its confidence interval; None where there is no finite value."""

    value: float | None
    lo: float | None
    hi: float | None


def wilson_bounds(k: Any, n: int, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return the Wilson score bounds of k successes in n trials, for an array of k.

    (p̂ + z²/2n ± z √(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n). Source: Wilson, JASA 22 (1927).
    """
    k = np.asarray(k, dtype=float)
    if n < 1 or (k < 0).any() or (k > n).any():
        raise OptionError("successes k of n trials", expected="0 ≤ k ≤ n and n ≥ 1", got=f"k = {k}, n = {n}")
    z = _normal_quantile(level)
    p = k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return np.where(k == 0, 0.0, centre - half), np.where(k == n, 1.0, centre + half)


def wilson(k: int, n: int, level: float = LEVEL) -> Estimate:
    """Return k/n with its Wilson score interval; all None if n = 0."""
    if n == 0 and k == 0:
        return Estimate(value=None, lo=None, hi=None)
    lo, hi = wilson_bounds(k, n, level)
    return Estimate(value=k / n, lo=float(lo), hi=float(hi))


def clopper_pearson(k: int, n: int, level: float = LEVEL) -> Estimate:
    """Return k/n with its exact interval, whose coverage is never below the level (for guarantees).

    Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    from scipy.stats import binomtest

    if n < 1 or not 0 <= k <= n:
        raise OptionError("successes k of n trials", expected="0 ≤ k ≤ n and n ≥ 1", got=f"k = {k}, n = {n}")
    interval = binomtest(k, n).proportion_ci(confidence_level=level, method="exact")
    return Estimate(value=k / n, lo=float(interval.low), hi=float(interval.high))


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the exact two-sided p-value that two paired binary outcomes have equal probability.

    p = min(1, 2 P[Bin(b + c, ½) ≤ min(b, c)]), where b and c count the discordant pairs.
    Source: McNemar, Psychometrika 12 (1947), in its exact binomial form.
    """
    from scipy.stats import binom

    total = first_only + second_only
    return min(1.0, 2 * float(binom.cdf(min(first_only, second_only), total, 0.5))) if total else 1.0


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the p-values of a family of tests, corrected so that any error among them all is kept at the level.

    Of m tests in order of their p, p̃₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎), however the tests depend on each
    other. Source: Holm, Scandinavian Journal of Statistics 6, 65 (1979).

    Args:
        p: (tests,) p-values in [0, 1].

    Returns:
        (tests,) in the order given.
    """
    values = np.asarray(p, dtype=float)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise OptionError("p-values", expected="one row of numbers in [0, 1]", got=values.tolist())
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(values), 0, -1) * values[order]))
    return corrected


def paired_difference(both: int, first_only: int, second_only: int, neither: int, level: float = LEVEL) -> Estimate:
    """Return p₁ − p₂ of two proportions on the same samples with a score interval.

    With the Wilson bounds (l, u) of each proportion, and φ their correlation in the 2 × 2 table (corrected for
    continuity where positive), the lower end is p₁ − p₂ − √(a² − 2φab + b²) with a = p₁ − l₁, b = u₂ − p₂; the upper
    end follows by symmetry. Source: Newcombe, Statistics in Medicine 17, 2635 (1998), method 10.
    """
    n = both + first_only + second_only + neither
    one, two = wilson(both + first_only, n, level), wilson(both + second_only, n, level)
    if one.value is None or two.value is None or one.lo is None or one.hi is None or two.lo is None or two.hi is None:
        return Estimate(value=None, lo=None, hi=None)
    cross = float(both * neither - first_only * second_only)
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    phi = cross / math.sqrt(margins) if margins else 0.0

    def combine(a: float, b: float) -> float:
        return math.sqrt(max(a**2 - 2 * phi * a * b + b**2, 0.0))

    value = (first_only - second_only) / n
    lo = value - combine(one.value - one.lo, two.hi - two.value)
    hi = value + combine(one.hi - one.value, two.value - two.lo)
    return Estimate(value=value, lo=lo, hi=hi)


def censored_median(distances: np.ndarray, level: float = LEVEL) -> Estimate:
    """Return the median of distances of which some are right-censored (+inf), with a distribution-free interval.

    The median is given only if fewer than half are censored. The interval [x₍l₎, x₍n+1−l₎] of the order statistics
    uses the largest l with P[Bin(n, ½) ≤ l − 1] ≤ (1 − level)/2; an end that is censored, or that so few samples
    cannot give, is None. Source: Conover, Practical Nonparametric Statistics, section 3.2.
    """
    from scipy.stats import binom

    x = _checked(distances)
    n = len(x)
    rank = int(binom.ppf((1 - level) / 2, n, 0.5)) if n else 0
    if rank and binom.cdf(rank, n, 0.5) <= (1 - level) / 2:
        rank += 1  # the tail falls exactly on the quantile
    lo, hi = (x[rank - 1], x[n - rank]) if rank else (-math.inf, math.inf)
    return Estimate(value=_finite(_medians(x[None])[0]) if n else None, lo=_finite(lo), hi=_finite(hi))


def median_difference(
    first: np.ndarray,
    second: np.ndarray,
    generator: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = LEVEL,
) -> Estimate:
    """Return median(first) − median(second) on the same samples with a paired bootstrap percentile interval.

    Samples are drawn with replacement, the same ones for both. A resampled median of which half or more is censored is
    +inf; where both are, their difference is unknown and counts as −inf for the lower end, +inf for the upper.

    Args:
        first, second: (samples,) distances, +inf where censored, in the same order.
        generator: source of the resampling.
        resamples: number of bootstrap draws.
        level: of the interval.
    """
    a, b = _checked(first, sort=False), _checked(second, sort=False)
    if len(a) != len(b) or not len(a):
        raise OptionError("paired distances", expected="two arrays of one length ≥ 1", got=f"{len(a)} and {len(b)}")
    draws, block = [], max(1, _BLOCK // len(a))
    for start in range(0, resamples, block):
        index = generator.integers(0, len(a), (min(block, resamples - start), len(a)))
        draws.append(_subtract(_medians(a[index]), _medians(b[index])))
    drawn = np.concatenate(draws)
    tail = (1 - level) / 2
    low = np.quantile(np.where(np.isnan(drawn), -np.inf, drawn), tail, method="inverted_cdf")
    high = np.quantile(np.where(np.isnan(drawn), np.inf, drawn), 1 - tail, method="inverted_cdf")
    value = _subtract(_medians(a[None]), _medians(b[None]))[0]
    return Estimate(value=_finite(value), lo=_finite(low), hi=_finite(high))


def _medians(x: np.ndarray) -> np.ndarray:
    """Medians of the rows; +inf as soon as half of a row is censored."""
    middle = x.shape[1] // 2
    part = np.partition(x, (max(middle - 1, 0), middle), axis=1)
    return part[:, middle] if x.shape[1] % 2 else (part[:, middle - 1] + part[:, middle]) / 2


def _subtract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a − b, NaN where both are infinite."""
    with np.errstate(invalid="ignore"):
        return a - b


def _checked(distances: np.ndarray, sort: bool = True) -> np.ndarray:
    x = np.asarray(distances, dtype=float)
    if x.ndim != 1 or np.isnan(x).any() or (x < 0).any():
        raise OptionError(
            "distances", expected="one row of numbers ≥ 0 or +inf", got="NaN, a negative number or a matrix"
        )
    return np.sort(x) if sort else x


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise OptionError("confidence level", expected="between 0 and 1", got=level)
    return NormalDist().inv_cdf((1 + level) / 2)
