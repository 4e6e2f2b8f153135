"""Intervals and tests where the seed of the training is the unit of replication, not the test point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustode.errors import OptionError
from robustode.evaluation.statistics import LEVEL, Estimate


@dataclass(frozen=True, kw_only=True)
class SeedTest(Estimate):
    """A mean over n seeds with its interval, and the two-sided p-value that it is zero; None with one seed."""

    p: float | None
    n: int


def t_interval(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> SeedTest:
    """Return the mean over seeds with Student's interval, and the p-value of mean = 0.

    x̄ ± t₍n−1, (1 + level)/2₎ s/√n with s² = Σ (x − x̄)²/(n − 1); p = 2 P[t₍n−1₎ > |x̄| √n / s]. Values that are all equal
    have an interval of width 0. Bounds and p are None with one value, all is None with none.
    Source: Student, Biometrika 6, 1 (1908).

    Args:
        values: (seeds,) one finite number for each training seed.
        level: of the interval.

    Raises:
        OptionError: a value that is not finite, or a matrix.
    """
    from scipy.stats import t

    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise OptionError("values of the seeds", expected="one row of finite numbers", got=x.tolist())
    n = len(x)
    if n < 2:
        return SeedTest(value=float(x[0]) if n else None, lo=None, hi=None, p=None, n=n)
    mean, error = float(x.mean()), float(x.std(ddof=1)) / math.sqrt(n)
    half = float(t.ppf((1 + level) / 2, n - 1)) * error
    p = 2 * float(t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    return SeedTest(value=mean, lo=mean - half, hi=mean + half, p=p, n=n)


def paired_t(
    values: Sequence[float] | np.ndarray, against: Sequence[float] | np.ndarray, level: float = LEVEL
) -> SeedTest:
    """Return the mean of the differences values − against, paired by seed, as `t_interval` does.

    Args:
        values, against: (seeds,) in the order of the same seeds.
        level: of the interval.

    Raises:
        OptionError: arrays of different lengths, or a value that is not finite.
    """
    a, b = np.asarray(values, dtype=float), np.asarray(against, dtype=float)
    if a.shape != b.shape:
        raise OptionError(
            "values paired by seed", expected="two rows of one length", got=f"shapes {a.shape} and {b.shape}"
        )
    return t_interval(a - b, level)
