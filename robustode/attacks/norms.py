"""Norms of perturbations: distance, tolerance of the ball, dual direction, batched over samples."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from robustode.errors import BudgetError, unknown

Norm = Literal["l1", "l2", "linf"]
NORMS: tuple[str, ...] = get_args(Norm)


def check_norm(norm: str) -> Norm:
    """Return `norm` if it is one of "l1", "l2", "linf"; raise `BudgetError` otherwise."""
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS, BudgetError)
    return norm  # type: ignore[return-value]


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (batch,) values so that they broadcast against `like` of shape (batch, ...)."""
    return values.reshape(-1, *([1] * (like.dim() - 1)))


def distance(x: Tensor, x_adv: Tensor, norm: str) -> Tensor:
    """Return ‖x_adv − x‖ of every sample, measured in float64; shape (batch,)."""
    delta = (x_adv.detach().double() - x.detach().double()).flatten(1)
    order = {"l1": 1, "l2": 2, "linf": math.inf}[check_norm(norm)]
    return torch.linalg.vector_norm(delta, ord=order, dim=1)


def ball_tolerance(eps: float, bounds: tuple[float, float], dimension: int, norm: str) -> float:
    """Return τ, by which a float32 point may exceed its ball: τ = 1e-6 ε + 2⁻²² (hi − lo) ‖1‖.

    Args:
        eps: radius of the ball, in raw-input units.
        bounds: (lo, hi) of the model.
        dimension: number of coordinates d of one sample; ‖1‖ is 1, √d, d for L∞, L2, L1.
        norm: "l1", "l2" or "linf".
    """
    ones = {"l1": float(dimension), "l2": math.sqrt(dimension), "linf": 1.0}[check_norm(norm)]
    return 1e-6 * eps + 2.0**-22 * (bounds[1] - bounds[0]) * ones


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Return the unit-norm direction that maximises ⟨gradient, δ⟩: g/‖g‖₂, sign(g), or one signed coordinate for L1.

    A zero gradient gives a zero direction. Shape as `gradient`, (batch, ...).
    """
    flat = gradient.flatten(1)
    if check_norm(norm) == "linf":
        out = flat.sign()
    elif norm == "l2":
        out = torch.nn.functional.normalize(flat, dim=1, eps=torch.finfo(flat.dtype).tiny)
    else:
        index = flat.abs().argmax(1, keepdim=True)
        out = torch.zeros_like(flat).scatter(1, index, flat.gather(1, index).sign())
    return out.reshape(gradient.shape)


def dual(gradient: Tensor, norm: str) -> Tensor:
    """Return the dual norm of each row of `gradient` (..., d): ‖·‖₂, ‖·‖₁ for L∞, ‖·‖_∞ for L1; shape (...)."""
    order = {"l2": 2, "linf": 1, "l1": math.inf}[check_norm(norm)]
    return torch.linalg.vector_norm(gradient, ord=order, dim=-1)
