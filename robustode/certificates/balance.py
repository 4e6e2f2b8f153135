"""How a bound for all slopes is made of one for a matrix: the scales Λ that balance x_i against (W x)_i, optimised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustode.certificates.spectral import Form, slack

ROUNDS = 12
FLOOR = 1e-6  # least scale, relative to the largest

FormOf = Callable[[Tensor], Form]


def fixed_scales(weight: Tensor) -> Tensor:
    """Return the scales that need no optimisation, (2, n): the norms of the rows of W, and ‖W‖ for all."""
    rows = torch.linalg.vector_norm(weight, dim=-1)
    whole = torch.linalg.matrix_norm(weight, ord=2)
    return torch.stack([_positive(rows), _positive(whole.expand_as(rows))])


def best_scales(weight: Tensor, form: FormOf, centre: Tensor, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Return (the least bound found, its Λ) over diagonal Λ > 0 of the largest eigenvalue of `form(Λ)`.

    The bound is convex in Λ. Its dual is the largest over P ⪰ 0, tr P = 1 of the form in P with λ_i = √((W P Wᵀ)_ii /
    (M P Mᵀ)_ii), the best Λ for that P; P gains the leading eigenvector in each round, as in the method of Frank and
    Wolfe. Where P has rank one the bound is attained by a vertex of the slopes.

    Args:
        weight: W, (n, n).
        form: of (n,) scales, the form that bounds the problem's for all slopes.
        centre: M, (n, n): the matrix whose rows W's are balanced against.
        rounds: eigenproblems solved besides those of the fixed scales.

    Returns:
        the bound, rounding allowed for, () and the scales, (n,).
    """
    tried = [(*_leading(form(candidate), weight), candidate) for candidate in fixed_scales(weight)]
    best, _, scales = min(tried, key=lambda found: float(found[0]))
    factor = torch.stack([vector for _, vector, _ in tried], dim=1) / len(tried) ** 0.5
    for k in range(rounds):
        candidate = _response(weight, centre, factor)
        value, vector = _leading(form(candidate), weight)
        if bool(value < best):
            best, scales = value, candidate
        share = 2 / (k + 4)
        factor = torch.cat([factor * (1 - share) ** 0.5, vector[:, None] * share**0.5], dim=1)
    return best, scales


def _leading(form: Form, weight: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(form.matrix(weight))
    return values[-1] + slack(form, weight), vectors[:, -1]


def _response(weight: Tensor, centre: Tensor, factor: Tensor) -> Tensor:
    """Return λ_i = √((W P Wᵀ)_ii / (M P Mᵀ)_ii) for P = F Fᵀ."""
    above = torch.linalg.vector_norm(weight @ factor, dim=-1)
    below = torch.linalg.vector_norm(centre @ factor, dim=-1)
    return _positive(above / below.clamp(min=1e-12))


def _positive(scales: Tensor) -> Tensor:
    top = scales.max()
    return scales.clamp(min=float(top) * FLOOR) if float(top) > 0 else torch.ones_like(scales)
