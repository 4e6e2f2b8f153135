"""L2 norms of the Jacobian of one step along given slopes, and of the rows that lead to its pre-activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.linear import UNIT, linear
from robustode.certificates.steps import moved_step, step_constant
from robustode.solvers.flow import Flow

EXACT = 256  # features up to which eigenvalues are computed; beyond, they are guessed and verified
GUESSES = (1.002, 1.01, 1.04, 1.2, 2.0)  # of the square of the norm, by what is found by power iteration
ITERATIONS = 24


@dataclass(frozen=True, kw_only=True, eq=False)
class StepNorms:
    """Norms of what leads from x_n to the results of a step, along given slopes.

    Attributes:
        whole: ‖∂x_{n+1}/∂x_n‖, at least, (batch,).
        rows: of each stage, ‖∂a_i/∂x_n‖ of every component, at least, broadcastable against (batch, *state).
    """

    whole: Tensor
    rows: tuple[Tensor, ...]


def step_norms(flow: Flow, n: int, slopes: tuple[Tensor, ...], *, whole: bool) -> StepNorms:
    """Return the norms of step n along the slopes of its stages.

    Args:
        flow: in float64.
        n: number of the step.
        slopes: of each stage, (batch, *state).
        whole: whether the Jacobian is formed, as one matrix for each sample, which is for dense states; without, its
            norm is the bound of `step_constant` with √(L1 · L∞).
    """
    if whole:
        return _formed(flow, n, slopes)
    growths: list[Tensor] = []

    def at(i: int, growth: Tensor) -> tuple[Tensor, Tensor]:
        growths.append(growth)
        return slopes[i], slopes[i]

    constant = step_constant(flow, n, "l2", at, eigen=False)
    axes = (slice(None), *(None,) * flow.operator.dims)
    rows = (linear(flow, n, i).row_norms("l2") * g.expand_as(constant)[axes] for i, g in enumerate(growths))
    return StepNorms(whole=constant, rows=tuple(row * (1 + 2.0**-50) for row in rows))


def _formed(flow: Flow, n: int, slopes: tuple[Tensor, ...]) -> StepNorms:
    """Return the norms of the matrices themselves, and what rounding may take from them.

    Rounding changes them by less than 4 (m + 8) u times what the sizes of all terms add up to, with m terms in a
    product, and the rows of those add up to less than `moved_step` of ones.
    """
    eye = torch.eye(flow.weight.shape[-1], dtype=torch.float64, device=flow.weight.device)
    changes: list[Tensor] = []
    rows: list[Tensor] = []
    slack = _slack(flow, n, slopes)
    for i, row in enumerate(flow.tableau.a):
        weight = linear(flow, n, i).weight
        inner = sum(
            (flow.step * a * change for a, change in zip(row, changes, strict=True) if a), torch.zeros_like(eye)
        )
        matrix = weight + weight @ inner if any(row) else weight.expand(len(slopes[i]), -1, -1)
        size = torch.linalg.vector_norm(weight, dim=-1)
        rows.append(torch.linalg.vector_norm(matrix, dim=-1) * (1 + 2.0**-40) + slack[:, None] * size)
        changes.append(slopes[i][:, :, None] * matrix)
    whole = eye + sum(flow.step * b * change for b, change in zip(flow.tableau.b, changes, strict=True) if b)
    return StepNorms(whole=spectral_norms(whole) * (1 + 2.0**-50) + slack, rows=tuple(rows))


def _slack(flow: Flow, n: int, slopes: tuple[Tensor, ...]) -> Tensor:
    ones, features = torch.ones_like(slopes[0]), slopes[0].shape[-1]
    sums = moved_step(flow, n, ones, lambda i, size: (slopes[i], slopes[i])).amax(1) + 2
    return 4 * flow.tableau.stages * (features + 8) * UNIT * features**0.5 * sums


def spectral_norms(matrix: Tensor) -> Tensor:
    """Return upper bounds of the L2 norms of square matrices, (...), of matrices (..., n, n).

    The largest eigenvalue of M = AᵀA, or a number c such that c I − M has a Cholesky factor; to either, 4 n (n + 8) u
    times its size is added for rounding. √(L1 · L∞) where that is less; inf where M overflows.

    Source: Rump, Verification of positive definiteness, BIT 46 (2006), theorem 2.3.
    """
    size = matrix.shape[-1]
    gram = matrix.mT @ matrix
    finite = gram.flatten(-2).isfinite().all(-1)
    gram = torch.where(finite[..., None, None], gram, 0.0)
    both = matrix.abs().sum(-1).amax(-1) * matrix.abs().sum(-2).amax(-1)
    square = torch.linalg.eigvalsh(gram)[..., -1] if size <= EXACT else _verified(gram, both)
    square = square + 4 * size * (size + 8) * UNIT * gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    norms = torch.minimum(square.clamp(min=0), both * (1 + 2.0**-40)).sqrt() * (1 + 2.0**-50)
    return torch.where(finite, norms, torch.inf)


def _verified(gram: Tensor, most: Tensor) -> Tensor:
    """Return for matrices the least guess c with c I − M positive definite, `most` where there is none."""
    vector = torch.ones_like(gram[..., :1])
    for _ in range(ITERATIONS):
        vector = torch.nn.functional.normalize(gram @ vector, dim=-2, eps=1e-300)
    found = (vector * (gram @ vector)).sum((-2, -1))
    out, eye = most, torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    for guess in reversed(GUESSES):
        top = found * guess
        _, failed = torch.linalg.cholesky_ex(top[..., None, None] * eye - gram)
        out = torch.where(failed == 0, torch.minimum(out, top), out)
    return out
