"""The norms of perturbations: their names, the dual norm, the steepest direction."""

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
