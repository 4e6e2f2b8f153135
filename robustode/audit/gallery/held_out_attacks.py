"""The broken attacks of the held-out half, as a user's own functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustode.audit.gallery.sick import STEPS, climb, gradient_sign
from robustode.models.base import Classifier


def downhill(model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """FGSM that makes the loss smaller."""
    return (x - eps * gradient_sign(model, x, y)).clamp(*model.bounds)


def batch_norm(model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """Steps whose length is divided by the norm over the whole batch."""
    point = x.clone()
    for _ in range(STEPS):
        way = gradient_sign(model, point, y)
        point = point + eps / 8 * way / way.norm()
        point = torch.minimum(torch.maximum(point, x - eps), x + eps).clamp(*model.bounds)
    return point


def rounded(model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """PGD whose points are saved in 12 grey levels."""
    return (11 * climb(model, x, y, eps, eps / 8, generator)).round() / 11


def last_restart(
    model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator
) -> Tensor:
    """PGD, of which the start of a further run is returned."""
    climb(model, x, y, eps, eps / 8, generator)
    start = x + eps * (2 * torch.rand(x.shape, generator=generator).to(x) - 1)
    return start.clamp(*model.bounds)


def vanishing(model: Classifier, x: Tensor, y: Tensor, *, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """PGD from the clean point, with steps of ε exp(−60 ε)."""
    point, step = x.clone(), eps * math.exp(-60 * eps)
    for _ in range(STEPS):
        point = (point + step * gradient_sign(model, point, y)).clamp(*model.bounds)
        point = torch.minimum(torch.maximum(point, x - eps), x + eps)
    return point
