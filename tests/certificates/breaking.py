"""Attempts to find another answer within certified radii: what every bound's tests use."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 10  # of descent, from each of STARTS points; as many points again are only tried
STARTS = 3


def unit_vectors(shape: tuple[int, ...], norm: str, generator: torch.Generator) -> Tensor:
    """Random points of the unit sphere of a norm, (n, d): corners of the cube or coordinates among them."""
    draws = torch.randn(shape, generator=generator, dtype=torch.float64)
    if norm == "linf":
        return draws.sign()
    if norm == "l2":
        return draws / draws.norm(dim=-1, keepdim=True)
    return torch.zeros_like(draws).scatter(-1, draws.abs().argmax(-1, keepdim=True), 1.0) * draws.sign()


def lowest_margins(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    radius: Tensor,
    norm: str,
    bounds: tuple[float, float] = (-torch.inf, torch.inf),
) -> Tensor:
    """Return the lowest margin z_y − max z_k found in the balls, (batch,), by random points and gradient descent.

    Args:
        logits: differentiable, float64.
        x: (batch, ...).
        y: (batch,).
        radius: (batch,).
        norm: of the balls.
        bounds: box that points are clipped to, which takes none out of its ball.
    """
    generator = torch.Generator().manual_seed(0)
    size = radius.reshape(-1, *(1,) * (x.dim() - 1))
    lowest = torch.full_like(radius, torch.inf)
    for k in range(2 * STARTS):
        delta = unit_vectors((len(x), x[0].numel()), norm, generator).reshape(x.shape) * size
        point = x + delta * (1.0 if k % 2 else float(torch.rand((), generator=generator)))
        for _ in range(STEPS if k < STARTS else 1):
            point = point.detach().clamp(*bounds).requires_grad_()
            z = logits(point)
            margin = (z.gather(1, y[:, None]) - z.scatter(1, y[:, None], -torch.inf)).amin(1)
            lowest = torch.minimum(lowest, margin.detach())
            (gradient,) = torch.autograd.grad(margin.sum(), point)
            point = x - size * _steepest(gradient.flatten(1), norm).reshape(x.shape)
    return lowest


def _steepest(gradient: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return gradient.sign()
    if norm == "l2":
        return torch.nn.functional.normalize(gradient, dim=1, eps=1e-300)
    index = gradient.abs().argmax(1, keepdim=True)
    return torch.zeros_like(gradient).scatter(1, index, gradient.gather(1, index).sign())
