"""Where a walk may begin: the lead, on its way to any other class, and rows that set out for each of the nearest."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.attacks.norms import dual, per_sample
from robustode.attacks.projections import furthest
from robustode.attacks.search import Plane, Search
from robustode.sensitivity.linearise import linearise

LINEAR = (0.7, 1.4)  # what a margin may change by, as a share of what was predicted, to count as linear
DAMPING = (0.3, 1.0)  # least and largest share of a step of the lead
NEAR = 0.05  # a lead whose next step is this share of its way is at the boundary
PROBES = 2  # forward passes for the boundary on the ray through the end of the lead


def lead(search: Search, rows: Tensor, plane: Plane, *, steps: int, damping: float, temperature: float) -> Tensor:
    """Follow the soft margin of all classes from the clean inputs; return the boundary points met, or where it ended.

    x ← x + β (p − x), with p the clean input's projection onto the linearised soft margin and β adapted to how linear
    the margin proves to be; then the boundary is looked for on the ray through the last p.

    Args:
        plane: that of the soft margin at the clean inputs.
        steps: further linearisations.
        damping: first β.
        temperature: of the soft margin.
    """
    x, end = search.x0[rows].clone(), plane.point.clone()
    beta = torch.full((len(rows),), damping, dtype=x.dtype, device=x.device)
    going = torch.arange(len(rows), device=x.device)
    for _ in range(steps):
        step = per_sample(beta[going], x) * (plane.point - x[going])
        predicted = (plane.gradient * step).flatten(1).sum(1)
        x[going] += step
        before = plane.value
        plane = search.plane(rows[going], x[going], temperature=temperature)
        end[going] = plane.point
        ratio = (plane.value - before) / torch.where(predicted == 0, torch.ones_like(predicted), predicted)
        linear = (ratio > LINEAR[0]) & (ratio < LINEAR[1])
        beta[going] = torch.where(linear, beta[going] * 1.5, beta[going] * 0.8).clamp(*DAMPING)
        left = (plane.point - x[going]).flatten(1).norm(dim=1)
        moving = left > NEAR * (plane.point - search.x0[rows[going]]).flatten(1).norm(dim=1)
        going, plane = going[moving], plane.take(moving)
        if len(going) == 0:
            break
    search.ray(rows, end, evaluations=PROBES)
    found = torch.isfinite(search.best[rows])
    return torch.where(per_sample(found, x), search.best_x[rows], end)


def nearest_classes(search: Search, x: Tensor, *, pool: int, count: int) -> tuple[Plane, Tensor]:
    """Linearise the margins to the classes of largest logits at `x`, and keep the nearest in the linear model.

    One forward and `pool` + 1 reverse rows for each row of the search (targeted: the margins z_k − z_t of the largest
    logits, the farthest of which binds).

    Returns:
        The planes at `x`, row after row `count` of them, nearest first, projected from the clean inputs; and the
        classes, (rows · count,).
    """
    linear = linearise(search.model, x)
    logits, own = linear.logits, search.own[:, None]
    rows, classes = logits.shape
    pool = min(pool, classes - 1)
    others = logits.nan_to_num(nan=-torch.inf).scatter(1, own, -torch.inf).topk(pool, dim=1).indices
    asked = torch.nn.functional.one_hot(torch.cat([own, others], 1), classes).to(logits.dtype)
    pulled = linear.vjp(asked).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    search.passes.add(search.sample, forwards=search.share, backwards=search.share * (pool + 1))
    sign = 1.0 if search.target is None else -1.0
    value = sign * (logits.gather(1, own) - logits.gather(1, others))
    gradient = sign * (pulled[:, :1] - pulled[:, 1:])
    away = (gradient.flatten(2) * (x - search.x0).flatten(1)[:, None]).sum(2)
    ahead = (value - away) / dual(gradient.flatten(2), search.norm).clamp_min(1e-30)
    count = min(count, pool)
    order = torch.where(torch.isfinite(ahead), sign * ahead, torch.inf).argsort(dim=1, stable=True)[:, :count]
    each = torch.arange(rows, device=x.device)[:, None]
    wide = search.spawn(search.every.repeat_interleave(count))
    plane = wide.project(
        wide.every,
        x.repeat_interleave(count, 0),
        value[each, order].reshape(-1),
        gradient[each, order].flatten(0, 1),
        search.tolerance(search.every, logits).repeat_interleave(count),
    )
    return plane, others.gather(1, order).reshape(-1)


def towards(
    search: Search,
    rows: Tensor,
    x: Tensor,
    plane: Plane,
    candidate: Tensor,
    radius: Tensor,
    *,
    steps: int,
    damping: float,
) -> Tensor:
    """Set out for one class each, no further than a radius; return the points reached.

    The next point is the projection p where it lies within the radius, else the point of {ball} ∩ {box} that the linear
    margin to the class says is best; after the first, steps are damped.

    Args:
        x: (rows, *input_shape), where `plane` was taken.
        plane: planes of the rows, as of `nearest_classes`.
        candidate: (rows,), the classes.
        radius: (rows,).
        steps: linearisations after the first.
        damping: share of the later steps.
    """
    lo, hi = search.model.bounds
    x0 = search.x0[rows]
    for i in range(steps + 1):
        if i:
            plane = search.plane(rows, x, candidate=candidate)
        ball = furthest(-plane.gradient.flatten(1), radius.to(x.dtype), x0.flatten(1), (lo, hi), search.norm)
        far = per_sample(plane.length > radius, x)
        aim = torch.where(far, (x0 + ball.reshape(x0.shape)).clamp(lo, hi), plane.point)
        x = x + (damping if i else 1.0) * (aim - x)
    return x.clamp(lo, hi)


def far_points(search: Search, rows: Tensor, *, evaluations: int) -> None:
    """For rows with nothing found: look far from the clean input, where saturation does not hide the gradient.

    The inverted image, black, grey, white and four noise images are asked, then the boundary on the rays to those that
    are answered otherwise. Each row is asked the same points in any batch.
    """
    if len(rows) == 0:
        return
    lo, hi = search.model.bounds
    x0 = search.x0[rows]
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(4, *x0.shape[1:], generator=generator, dtype=torch.float64).to(x0)
    even = [torch.full_like(x0[0], share) for share in (0.0, 0.5, 1.0)]
    search.evaluate(rows, (lo + hi - x0).clamp(lo, hi))
    for point in (*even, *noise):
        search.evaluate(rows, (lo + (hi - lo) * point).clamp(lo, hi).expand_as(x0))
    found = rows[torch.isfinite(search.best[rows])]
    search.ray(found, search.best_x[found], evaluations=evaluations)


def distinct(search: Search, rows: Tensor, x: Tensor, reach: Tensor, *, per: int, count: int, apart: float) -> Tensor:
    """Return, of the rows of every sample, the nearest that do not lie beside a nearer one.

    Args:
        rows: those still in the race; every sample has `per` rows in sequence.
        x, reach: points and distances of all rows.
        count: how many are kept at most for each sample.
        apart: least distance of two of them, as a share of ‖x − x₀‖₂.
    """
    score = torch.full_like(reach, torch.inf)
    score[rows] = reach[rows]
    score = score.reshape(-1, per)
    delta = (x - search.x0).reshape(len(score), per, -1)
    size = delta.norm(dim=2)
    kept = torch.zeros_like(score, dtype=torch.bool)
    each = torch.arange(len(score), device=x.device)
    for j in score.argsort(dim=1, stable=True).unbind(1):
        gap = (delta - delta[each, j][:, None]).norm(dim=2).masked_fill(~kept, torch.inf).amin(1)
        fits = torch.isfinite(score[each, j]) & (kept.sum(1) < count) & (gap > apart * size[each, j])
        kept[each, j] |= fits
    return kept.reshape(-1).nonzero().squeeze(1)
