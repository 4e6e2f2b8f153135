"""Rigorous upper bounds of the spectrum of quadratic forms in x and W x: what L2 bounds are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.linear import UNIT


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """The form q(x) = Σ_i α_i x_i² + 2 β_i x_i (W x)_i + γ_i (W x)_i², γ ≥ 0.

    Attributes:
        own, cross, square: α, β, γ, each (..., n).
    """

    own: Tensor
    cross: Tensor
    square: Tensor

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the symmetric matrix of q, (..., n, n)."""
        half = self.cross[..., None] * weight
        out = weight.mT @ (self.square[..., None] * weight)
        out = out + half + half.mT
        out.diagonal(dim1=-2, dim2=-1).add_(self.own)
        return out

    def size(self, weight: Tensor) -> Tensor:
        """Return a bound of the Frobenius norms of all terms of the matrix, added up, (...)."""
        squares = weight.square().sum(-1)
        cross = (self.cross.square() * squares).sum(-1).sqrt()
        square = (self.square.abs() * squares).sum(-1)
        return torch.linalg.vector_norm(self.own, dim=-1) + 2 * cross + square


def largest(form: Form, weight: Tensor) -> Tensor:
    """Return an upper bound of max q(x) / ‖x‖², (...).

    The largest eigenvalue in float64, plus 16 (n + 8) u times the size of the terms: the matrix is formed with an error
    below γ_{n+4} of that size, and a backward stable solver is off by a small multiple of n u ‖matrix‖.

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.5; Anderson et al., LAPACK Users'
    Guide (1999), section 4.7.
    """
    matrix = form.matrix(weight)
    values = torch.linalg.eigvalsh(matrix)[..., -1]
    return values + slack(form, weight)


def slack(form: Form, weight: Tensor) -> Tensor:
    """Return the rounding error allowed for in the largest eigenvalue of a form, (...)."""
    return 16 * (weight.shape[-1] + 8) * UNIT * form.size(weight)


def spectral_norm(matrix: Tensor) -> Tensor:
    """Return an upper bound of ‖matrix‖₂, (...), rounding allowed for as in `largest`."""
    size = torch.linalg.matrix_norm(matrix)
    return torch.linalg.matrix_norm(matrix, ord=2) + 16 * (matrix.shape[-1] + 8) * UNIT * size
