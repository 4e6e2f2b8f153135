"""Norms of perturbations: distance and tolerance of the ball, batched over samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustode.sensitivity.norms import NORMS, Norm, check_norm, dual, steepest

__all__ = ["NORMS", "Norm", "ball_tolerance", "check_norm", "distance", "dual", "per_sample", "steepest"]


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
