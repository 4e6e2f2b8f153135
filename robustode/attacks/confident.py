"""From a minimal-norm adversarial to the most confident one in a ball."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.attacks.norms import distance, per_sample, steepest
from robustode.attacks.search import Search

STEPS = 10


def into_ball(delta: Tensor, x0: Tensor, eps: float, norm: str, bounds: tuple[float, float]) -> Tensor:
    """Return x₀ + δ brought into the ball of radius ε (δ clipped for L∞, scaled for L2 and L1) and the box."""
    if norm == "linf":
        delta = delta.clamp(-eps, eps)
    else:
        length = distance(x0, x0 + delta, norm).to(delta.dtype)
        delta = delta * per_sample((eps / length.clamp_min(1e-30)).clamp_max(1.0), delta)
    return (x0 + delta).clamp(*bounds)


def most_confident(search: Search, eps: float) -> None:
    """Replace every row's best point by the one of most negative margin in the ball that projected ascent finds.

    Steps of steepest ascent of −margin, of length ε · (0.5 … 0.05), start from the minimal-norm adversarial stretched
    to the sphere; a sample whose minimal-norm search ended outside the ball starts from where that search points. Rows
    that end without an adversarial in the ball have nothing found.
    """
    x0, norm, bounds = search.x0, search.norm, search.model.bounds
    rows = torch.arange(len(x0), device=x0.device)
    found = search.best <= eps
    best_x, best_margin = search.best_x.clone(), torch.full_like(search.best, torch.inf)
    delta = search.best_x - x0
    scale = eps / distance(x0, search.best_x, norm).clamp_min(1e-30)
    x = into_ball(delta * per_sample(scale.to(x0.dtype), delta), x0, eps, norm, bounds)
    for i in range(STEPS + 1):
        plane = search.plane(rows, x)
        better = plane.value.double() < best_margin
        best_margin = torch.where(better, plane.value.double(), best_margin)
        best_x = torch.where(per_sample(better, x), x, best_x)
        if i < STEPS:
            length = eps * (0.5 - 0.45 * i / max(STEPS - 1, 1))
            x = into_ball(x - length * steepest(plane.gradient, norm) - x0, x0, eps, norm, bounds)
    broken = best_margin < 0
    keep = per_sample(broken, x)
    search.best_x = torch.where(keep, best_x, torch.where(per_sample(found, x), search.best_x, x0))
    search.best = torch.where(broken, distance(x0, best_x, norm), torch.where(found, search.best, torch.inf))
    search.best_value = torch.where(broken, best_margin.to(search.best_value), search.best_value)
