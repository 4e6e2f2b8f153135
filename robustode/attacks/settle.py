"""Points that hold alone, for models whose answers depend on the batch, as those of adaptive solvers do."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustode.attacks.norms import per_sample
from robustode.attacks.search import Search

FIRST, FURTHEST = 5e-4, 2.0  # s − 1 on the ray at first, and the largest s
BISECTIONS = 2
PROBE = 16  # points that are asked alone to see whether that matters
TIMES = 2.0  # a settled margin, in differences between the sample's answers alone and in the batch


@torch.no_grad()
def settle(search: Search, eps: float | None) -> None:
    """Lengthen the steps to best points until they are adversarial alone, where batch-mates were seen to matter.

    The points found lie within 1e-4 of the boundary; a model whose answer depends on the batch moves it by more, and so
    does rounding in a network whose logits are small differences. If the points, asked again as one batch, or alone the
    sixteen of smallest tolerance, answer with margins other than the search saw, each is asked alone, at
    x₀ + s (x − x₀), s − 1 = 5e-4, 1e-3, 2e-3, ... and then between, until its margin is below −max(tolerance / 2, twice
    the difference between its answers alone and in the batch). A sample for which it never is has nothing found. For
    models whose answers do not depend on the batch nothing changes, and no pass is counted.

    Args:
        search: one row for each sample.
        eps: radius that must not be left; None for none.
    """
    rows = torch.isfinite(search.best).nonzero().squeeze(1)
    if len(rows) == 0:
        return
    bare = getattr(search.model, "bare", search.model)
    together = _margins(search, rows, bare(search.best_x[rows]))
    few = rows[search.best_tolerance[rows].argsort()[:PROBE]]
    probed = _margins(search, few, torch.cat([bare(search.best_x[row : row + 1]) for row in few.tolist()]))
    if not (_moved(search, rows, together, 1 / 2) or _moved(search, few, probed, 1 / 4)):
        return
    apart = _alone(search, rows, search.best_x[rows])
    need = torch.maximum(search.best_tolerance[rows] / 2, TIMES * (apart - together).abs())
    held = torch.where(apart <= -need, 1.0, math.inf).to(search.best)  # the smallest s that is enough
    short, x = torch.ones_like(held), search.best_x[rows].clone()  # the largest s that was not
    most = torch.full_like(held, FURTHEST) if eps is None else (eps / search.best[rows]).clamp(1.0, FURTHEST)
    left = torch.full_like(rows, BISECTIONS)
    open_ = (torch.isinf(held) & (most > 1)).nonzero().squeeze(1)
    while len(open_):
        outward = torch.minimum(1 + (2 * (short[open_] - 1)).clamp_min(FIRST), most[open_])
        between = (short[open_] + held[open_]) / 2
        s = torch.where(torch.isfinite(held[open_]), between, outward)
        point = _stretched(search, rows[open_], s)
        good = _alone(search, rows[open_], point) <= -need[open_]
        x[open_[good]], held[open_[good]], short[open_[~good]] = point[good], s[good], s[~good]
        met = torch.isfinite(held[open_])
        left[open_[met]] -= 1
        open_ = open_[torch.where(met, left[open_] >= 0, s < most[open_])]
    kept = torch.isfinite(held)
    search.best_x[rows] = torch.where(per_sample(kept, x), x, search.x0[rows])
    search.best[rows] = torch.where(kept, search.distance(rows, x), torch.inf)


def _moved(search: Search, rows: Tensor, margin: Tensor, share: float) -> bool:
    """Whether a margin is not what the search saw, by more than a share of its tolerance."""
    return bool(((margin - search.best_value[rows]).abs() > share * search.best_tolerance[rows]).any())


def _stretched(search: Search, rows: Tensor, s: Tensor) -> Tensor:
    x0, best = search.x0[rows], search.best_x[rows]
    return (best + per_sample(s - 1, x0).to(x0) * (best - x0)).clamp(*search.model.bounds)


def _alone(search: Search, rows: Tensor, x: Tensor) -> Tensor:
    search.passes.add(search.sample[rows], forwards=search.share)
    return _margins(search, rows, torch.cat([search.model(one) for one in x.split(1)]))


def _margins(search: Search, rows: Tensor, logits: Tensor) -> Tensor:
    return search.constraint(rows, logits)[0]
