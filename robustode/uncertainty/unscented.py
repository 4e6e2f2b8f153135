"""Sigma points: mean and covariance with the curvature of the logits, from a few evaluations of any model."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from robustode.uncertainty.gaussian import Uncertainty
from robustode.uncertainty.linear import FirstOrder, first_order
from robustode.uncertainty.problem import Problem, double, gram

STEP = math.sqrt(3.0)  # distance of the sigma points, in standard deviations: right for a Gaussian's fourth moment
COMPLETE = 32  # sources of noise up to which every direction has its sigma points
PAIRS = 8  # pairs of points in the directions that have none of their own
ROWS = 4096  # points in flight


class _Moments(NamedTuple):
    mean: Tensor
    cov: Tensor


def unscented(problem: Problem, x: Tensor, first: FirstOrder | None = None) -> Uncertainty:
    """Return mean and covariance from sigma points, at the distance √3 standard deviations along singular directions.

    With J F = U S Vᵀ (Σ = F Fᵀ), the pair z± at x ± √3 F v_j gives a_j = (z+ − z−)/(2√3) and e_j = (z+ + z− − 2 z)/6;
    mean = z + Σ_j e_j and Cov = Σ_j (a_j a_jᵀ + 2 e_j e_jᵀ), which is positive semidefinite always, and exact for
    affine logits plus a quadratic without products of two of the directions (the mean for any quadratic).

    With up to 32 sources of noise, all directions are taken. With more, the `classes` singular directions are, outside
    of which J F vanishes; all others together, which only shift the mean and add what is not linear, are
    sampled by 8 antithetic pairs of random orthogonal directions at the radius that noise has there. Inner depths are
    read at the same points, which are chosen for the output. The weight term is that of the linear method.

    Source: Julier and Uhlmann 1997 (sigma points); Nørgaard, Poulsen and Ravn 2000 (this covariance).
    """
    first = first_order(problem, x) if first is None else first
    d = x[0].numel() if len(x) else 1
    r = problem.root.sources(d)
    rows = problem.root.pull(double(first.rows[:, -1].flatten(2)))
    rows = rows.nan_to_num(0.0, 0.0, 0.0)
    complete = r <= COMPLETE
    basis = torch.linalg.svd(rows, full_matrices=complete).Vh  # (batch, q, sources)
    centre = double(first.logits)
    mean, cov = _pairs(problem, x, basis * STEP, centre)
    if not complete and basis.shape[1] < r:
        mean, cov = (a + b for a, b in zip((mean, cov), _rest(problem, x, basis, centre), strict=True))
    mean = mean + centre
    if first.weights is not None:
        cov = cov + first.weights.to(cov)
    return Uncertainty(mean=mean[:, -1], cov=cov[:, -1], along=problem.along_depth(mean, cov))


def _evaluate(problem: Problem, x: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits at x ± F ξ for ξ (batch, q, sources), each (batch, depths, classes, q) float64."""
    shift = problem.root.push(xi).to(x).reshape(*xi.shape[:2], *x.shape[1:])
    points = torch.cat([x[:, None] + shift, x[:, None] - shift], 1)
    out = torch.cat([problem.logits(part) for part in points.flatten(0, 1).split(ROWS)])
    out = double(out).unflatten(0, points.shape[:2]).movedim(1, -1)
    plus, minus = out.chunk(2, dim=-1)
    return plus, minus


def _pairs(problem: Problem, x: Tensor, xi: Tensor, centre: Tensor) -> _Moments:
    """Return the shift of the mean and the covariance that the pairs of sigma points give."""
    if not xi.shape[1]:
        return _Moments(torch.zeros_like(centre), gram(centre[..., None] * 0))
    plus, minus = _evaluate(problem, x, xi)
    odd = (plus - minus) / (2 * STEP)
    even = (plus + minus - 2 * centre[..., None]) / (2 * STEP**2)
    return _Moments(even.sum(-1), gram(odd) + (STEP**2 - 1) * gram(even))


def _rest(problem: Problem, x: Tensor, basis: Tensor, centre: Tensor) -> _Moments:
    """Return what the directions outside the basis add: (1/m) Σ o oᵀ of the odd, scatter and mean of the even part."""
    _, q, r = basis.shape
    pairs = min(PAIRS, r - q)
    draws = torch.randn(r, pairs, generator=torch.Generator().manual_seed(0), dtype=basis.dtype).to(basis)
    outside = draws - basis.mT @ (basis @ draws)
    xi = torch.linalg.qr(outside).Q.mT * math.sqrt(r - q)
    plus, minus = _evaluate(problem, x, xi)
    odd, even = (plus - minus) / 2, (plus + minus) / 2 - centre[..., None]
    mean = even.mean(-1)
    scatter = gram(even - mean[..., None]) / max(1, pairs - 1)
    radius = 2 / (r - q)  # Var ρ² / (E ρ²)²: an even part that is quadratic varies with the radius too
    return _Moments(mean, gram(odd) / pairs + (1 + radius) * scatter + radius * gram(mean[..., None]))
