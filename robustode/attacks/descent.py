"""Normalised gradient descent for samples whose margin is too far from linear to be projected on."""

from __future__ import annotations

import math

import torch

from robustode.attacks.norms import distance, per_sample, steepest
from robustode.attacks.search import Search

START = {"l2": 0.05, "l1": 0.05, "linf": 0.1}  # first radius, as a share of the size of the box, if nothing is known


def descend(search: Search, rows: torch.Tensor, steps: int) -> None:
    """Move rows by steps of fixed relative length along the steepest descent of z_y − log Σ_{k≠y} exp z_k.

    The radius of the sphere that the points live on shrinks after an adversarial and grows otherwise, so that they
    settle near the boundary; what they meet is recorded by the search. The loss weighs all classes and cannot saturate;
    only the direction of its gradient is used, so that neither flat nor steep regions stop it.

    Args:
        search: the search; rows with an adversarial start from it, others from the clean input.
        rows: indices of the rows.
        steps: iterations, one forward and one reverse row each.

    Source: the decoupling of direction and norm is that of DDN, arXiv 1811.09600.
    """
    if len(rows) == 0 or steps == 0:
        return
    norm, (lo, hi), x0 = search.norm, search.model.bounds, search.x0[rows]
    known = torch.isfinite(search.best[rows])
    ones = {"l2": math.sqrt(x0[0].numel()), "l1": float(x0[0].numel()), "linf": 1.0}[norm]
    first = START[norm] * (hi - lo) * ones
    eps = torch.where(known, search.best[rows], first).to(x0.dtype)
    x = torch.where(per_sample(known, x0), search.best_x[rows], x0)
    along = "linf" if norm == "linf" else "l2"
    for i in range(steps):
        margin, gradient = search.descent_gradient(rows, x)
        fade = (1 + math.cos(math.pi * i / steps)) / 2
        rate = 0.02 + 0.13 * fade
        reached = torch.minimum(eps, search.best[rows].to(eps.dtype))
        eps = torch.where(margin < 0, reached * (1 - rate), eps * (1 + rate))
        step = steepest(gradient, along)
        size = distance(torch.zeros_like(step), step, norm).to(eps.dtype).clamp_min(1e-30)
        delta = x - x0 - per_sample((0.05 + 0.95 * fade) * eps / size, x0) * step
        if norm == "linf":
            delta = torch.minimum(torch.maximum(delta, per_sample(-eps, x0)), per_sample(eps, x0))
        else:
            length = distance(torch.zeros_like(delta), delta, norm).to(eps.dtype).clamp_min(1e-30)
            delta = delta * per_sample(eps / length, x0)
        x = (x0 + delta).clamp(lo, hi)
    search.evaluate(rows, x)
