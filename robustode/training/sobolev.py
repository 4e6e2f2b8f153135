"""The Sobolev gradient: a gradient in depth, smoothed by the inner product that defines it."""

from __future__ import annotations

import torch
from torch import Tensor


class Sobolev:
    """The inner product ⟨u, v⟩ = ∫ u·v + ℓ² u'·v' dt on paths through the knots, and gradients with respect to it.

    The gradient v of a functional with L2 gradient u solves v − ℓ² v'' = u on [0, T], v' = 0 at both ends. On the knots
    t_k = (k + ½) T / knots, with lumped mass M = (T / knots) I and the stiffness K of piecewise linear paths that are
    constant beyond the outer knots, that is (M + ℓ² K) v = g with g the Euclidean gradient: symmetric and positive
    definite, so that −v is always a direction of descent. ℓ = 0 gives the L2 gradient.

    Args:
        knots: number of knots, at least 1.
        horizon: final depth T.
        length: ℓ ≥ 0, in units of depth.
        like: tensor whose dtype and device the matrices take; default float64 on the CPU.

    Source: Jaroudi et al., arXiv 2205.13933, Sobolev gradient (discretised there by a midpoint rule).
    """

    def __init__(self, knots: int, horizon: float, length: float, *, like: Tensor | None = None) -> None:
        spacing = horizon / knots
        difference = torch.eye(knots, dtype=torch.float64).diff(dim=0) / spacing
        matrix = spacing * (torch.eye(knots, dtype=torch.float64) + length**2 * difference.t() @ difference)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        self.matrix = matrix if like is None else matrix.to(like)
        self._inverse = inverse if like is None else inverse.to(like)

    def gradient(self, euclidean: Tensor) -> Tensor:
        """Return v = (M + ℓ² K)⁻¹ g for g of shape (knots, ...)."""
        return (self._inverse @ euclidean.flatten(1)).reshape(euclidean.shape)

    def inner(self, u: Tensor, v: Tensor) -> float:
        """Return ⟨u, v⟩ = uᵀ (M + ℓ² K) v, summed over all components; u and v are (knots, ...)."""
        return float((u.flatten(1) * (self.matrix @ v.flatten(1))).sum(dtype=torch.float64))
