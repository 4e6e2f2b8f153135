"""Orthant probabilities of many multivariate normal vectors at once, with the error of the integration."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

REPLICATES = 8  # independently scrambled point sets; their scatter is the error
POINTS = (64, 256, 1024)  # points of each of them, in the rounds that a sample goes through until it is accurate
TOLERANCE = 3e-4  # absolute, of three standard errors
CHUNK_NUMBERS = 2**18  # samples × points in flight
SINGULAR = 1e-8  # conditional variance, of a component of variance 1, below which the others determine it
TINY = 1e-300


class Probability(NamedTuple):
    """Probabilities and three standard errors of each, (n,) float64; the error is 0 where the value is exact."""

    value: Tensor
    error: Tensor


class _Problem(NamedTuple):
    """P(C y < b) for standard normal y: `b` (n, m) and `c` (n, m, m) lower triangular, rows in order of integration."""

    b: Tensor
    c: Tensor


def orthant(centre: Tensor, cov: Tensor, *, seed: int = 0, tolerance: float = TOLERANCE) -> Probability:
    """Return P(d < 0) for d ~ N(centre, cov), in closed form for one component and by separation of variables else.

    The components are ordered by how little probability they leave, and the integral over the unit cube that Genz's
    transformation makes of it is taken with scrambled Sobol points, more of them for those samples whose error
    (three standard errors over the replicates) is above `tolerance`. Components that the others determine, of a
    singular covariance, narrow the interval of the last of those; no component may be NaN.

    Args:
        centre: (n, m) float64.
        cov: (n, m, m) float64, symmetric positive semidefinite; a component of variance 0 is the constant of its mean.
        seed: of the scrambling.
        tolerance: absolute error aimed at; not reached where the last round does not.

    Source: Genz 1992, Numerical computation of multivariate normal probabilities; ordering: Gibson, Glasbey and Elston
    1994; no library has it for a batch (scipy takes one covariance at a time).
    """
    scale = cov.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    sure = scale <= 1e-12 * centre.abs().clamp_min(TINY)  # components that cannot change sign
    never = (sure & (centre >= 0)).any(1)
    safe = scale.masked_fill(sure, 1.0)
    b = torch.where(sure, torch.inf, -centre / safe)
    value = torch.special.ndtr(b).prod(1).masked_fill(never, 0.0)
    error = torch.zeros_like(value)
    hard = ((~sure).sum(1) > 1).logical_and(~never).nonzero()[:, 0]
    if len(hard) == 0:
        return Probability(value, error)
    correlation = cov[hard] / safe[hard, :, None] / safe[hard, None]
    correlation = correlation.masked_fill(sure[hard, :, None] | sure[hard, None], 0.0)
    correlation.diagonal(dim1=1, dim2=2).fill_(1.0)
    problem = _ordered(b[hard], (correlation + correlation.mT) / 2)
    for points in POINTS:
        at_once = max(1, CHUNK_NUMBERS // (points * REPLICATES))
        chunks = zip(*(part.split(at_once) for part in problem), strict=True)
        parts = [_integrate(_Problem(*chunk), points, seed) for chunk in chunks]
        value[hard], error[hard] = (torch.cat(part) for part in zip(*parts, strict=True))
        again = error[hard] > tolerance
        if not bool(again.any()):
            break
        hard, problem = hard[again], _Problem(problem.b[again], problem.c[again])
    return Probability(value, error)


def _ordered(b: Tensor, correlation: Tensor) -> _Problem:
    """Return the Cholesky factor with the component of least conditional probability next, determined ones last."""
    n, m = b.shape
    b, a = b.clone(), correlation.clone()
    c, mean, at = torch.zeros_like(a), torch.zeros_like(b), torch.arange(n)
    for k in range(m):
        left = a.diagonal(dim1=1, dim2=2)[:, k:] - c[:, k:].square().sum(2)
        free = left > SINGULAR
        limit = (b[:, k:] - (c[:, k:, :k] @ mean[:, :k, None])[..., 0]) / left.clamp_min(SINGULAR).sqrt()
        i = k + torch.where(free, torch.special.ndtr(limit), 2.0).argmin(1)
        order = torch.arange(m).repeat(n, 1)
        order[at, i], order[:, k] = k, i
        b, c = b.gather(1, order), c[at[:, None], order]
        a = a[at[:, None, None], order[:, :, None], order[:, None]]
        root = left[at, i - k].clamp_min(0).sqrt()
        pivot = free[at, i - k]
        row = (a[:, :, k] - (c @ c[:, k, :, None])[..., 0]) / root.clamp_min(SINGULAR)[:, None]
        row[:, :k], row[:, k] = 0.0, root
        c[:, :, k] = row * pivot[:, None]
        upper = limit[at, i - k]
        density = torch.exp(-upper.square() / 2) / math.sqrt(2 * math.pi)
        mean[:, k] = -density / torch.special.ndtr(upper).clamp_min(TINY)
    return _Problem(b, c)


@cache
def _points(dimension: int, points: int, seed: int) -> Tensor:
    """Return the scrambled Sobol points of all replicates, (REPLICATES · points, dimension)."""
    seeds = range(REPLICATES * seed, REPLICATES * (seed + 1))
    sets = [torch.quasirandom.SobolEngine(dimension, scramble=True, seed=s) for s in seeds]
    return torch.cat([one.draw(points, dtype=torch.float64) for one in sets])


def _integrate(problem: _Problem, points: int, seed: int) -> Probability:
    """Return mean and error over the replicates of Genz's integrand, of one chunk of samples."""
    b, c = problem
    m = b.shape[1]
    u = _points(m - 1, points, seed)
    singular = (c.diagonal(dim1=1, dim2=2) == 0).any(1)
    value = torch.empty(len(b), len(u), dtype=b.dtype)
    for mask, limits in ((~singular, _upper), (singular, _between)):
        rows = mask.nonzero()[:, 0]
        if len(rows):
            value[rows] = _product(b[rows], c[rows], u, limits)
    means = value.unflatten(1, (REPLICATES, points)).mean(2)
    return Probability(means.mean(1).clamp(0.0, 1.0), means.std(1) * (3 / math.sqrt(REPLICATES)))


def _product(b: Tensor, c: Tensor, u: Tensor, limits) -> Tensor:
    """Return ∏_k P(lower_k < y_k < upper_k | y_1 ... y_{k−1}) at every point, (n, points)."""
    m = b.shape[1]
    y = torch.zeros(len(b), m, len(u), dtype=b.dtype)
    product = torch.ones(len(b), len(u), dtype=b.dtype)
    for k in range(m):
        low, width = limits(b, c, y, k)
        product *= width
        if k < m - 1:
            y[:, k] = _quantile(u[:, k] * width + low)
    return product


def _normal(x: Tensor) -> Tensor:
    """Return Φ(x) to an absolute 1e-16, in half the time of torch.special.ndtr, which is accurate relatively too."""
    return torch.erf(x * math.sqrt(0.5)).add_(1).mul_(0.5)


def _quantile(p: Tensor) -> Tensor:
    """Return Φ⁻¹(p), never infinite."""
    return p.mul_(2).sub_(1).clamp_(-1 + 1e-15, 1 - 1e-15).erfinv_().mul_(math.sqrt(2))


def _upper(b: Tensor, c: Tensor, y: Tensor, k: int) -> tuple[Tensor | float, Tensor]:
    """Return P(y_k < lower) = 0 and P(y_k < upper), where row k alone limits y_k."""
    shift = (c[:, k : k + 1, :k] @ y[:, :k])[:, 0]
    return 0.0, _normal((b[:, k, None] - shift) / c[:, k, k, None])


def _between(b: Tensor, c: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return P(y_k < lower) and P(lower < y_k < upper), where all rows that end in column k limit y_k."""
    entry = c[:, :, k, None]
    ends = (c.abs() > math.sqrt(SINGULAR)).long().cumsum(2)  # rows whose last entry that counts is in column k
    ends = ((ends[:, :, k] == ends[:, :, -1]) & (c[:, :, k].abs() > math.sqrt(SINGULAR)))[..., None]
    limit = (b[..., None] - c[:, :, :k] @ y[:, :k]) / torch.where(ends, entry, 1.0)
    upper = _normal(limit.masked_fill(~(ends & (entry > 0)), torch.inf).amin(1))
    lower = _normal(limit.masked_fill(~(ends & (entry < 0)), -torch.inf).amax(1))
    return lower, (upper - lower).clamp_min(0.0)
