"""Looks for inputs inside certified radii that have another answer: random ones, and by gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustode.sensitivity.norms import steepest


def least_margins(model, x: Tensor, y: Tensor, radius: Tensor, norm: str, *, seed=0, draws=32, steps=8) -> Tensor:
    """Return the least z_y − z_k found within `radius` (batch, classes) of each sample, for every class k.

    For each class the ball of its own radius is searched: its centre, random points of its surface, and steepest
    descent on the margin from the centre and from a random point. inf in column y.
    """
    others = torch.tensor([[k for k in range(model.classes) if k != label] for label in y.tolist()])
    k = others.flatten()
    rows = torch.arange(len(x)).repeat_interleave(model.classes - 1)
    found = _least(model, x[rows], y[rows], k, radius[rows, k], norm, torch.Generator().manual_seed(seed), draws, steps)
    return torch.full_like(radius, torch.inf).scatter(1, others, found.reshape(others.shape))


def _least(model, x, y, k, radius, norm, generator, draws, steps) -> Tensor:
    spread = radius.reshape(-1, *([1] * (x.dim() - 1)))

    def noise() -> Tensor:
        return surface(torch.randn(x.shape, generator=generator, dtype=torch.float64), norm).to(x) * spread

    best = margin(model, x, y, k)
    for _ in range(draws):
        best = torch.minimum(best, margin(model, x + noise(), y, k))
    for delta in (torch.zeros_like(x), noise()):
        for step in range(steps + 1):
            point = (x + delta).requires_grad_()
            value = margin(model, point, y, k)
            best = torch.minimum(best, value.detach())
            (gradient,) = torch.autograd.grad(value.sum(), point)
            delta = inside(delta - (1.0 if step == 0 else 0.4) * spread * steepest(gradient, norm), radius, norm)
    return best.detach()


def margin(model, x: Tensor, y: Tensor, k: Tensor) -> Tensor:
    z = model(x)
    return (z.gather(1, y[:, None]) - z.gather(1, k[:, None]))[:, 0]


def inside(delta: Tensor, radius: Tensor, norm: str) -> Tensor:
    """Shorten what is longer than the radius."""
    factor = (radius / length(delta, norm).clamp_min(1e-300)).clamp(max=1)
    return delta * factor.reshape(-1, *([1] * (delta.dim() - 1)))


def surface(noise: Tensor, norm: str) -> Tensor:
    """Points of length 1: corners of the cube, of the sphere, or edges of the cross-polytope."""
    flat = noise.flatten(1)
    if norm == "linf":
        flat = flat.sign()
    elif norm == "l1":
        flat = torch.where(flat.abs() >= flat.abs().topk(2, dim=1).values[:, -1:], flat, 0.0)
    return (flat / length(flat, norm)[:, None]).reshape(noise.shape)


def length(delta: Tensor, norm: str) -> Tensor:
    order = {"l1": 1, "l2": 2, "linf": math.inf}[norm]
    return torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
