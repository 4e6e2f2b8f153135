"""The minimal-norm search: linearise at the clean input, approach the nearest classes, polish along the boundary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.attacks.descent import descend
from robustode.attacks.norms import distance, dual, per_sample
from robustode.attacks.search import Plane, Search
from robustode.sensitivity.linearise import linearise


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much work a setting does.

    Attributes:
        classes: nearest classes tried in the approach (0: all of them).
        approach: linearisations on the way to each of them.
        keep: best classes that are polished along the boundary.
        polish: linearisations on the boundary.
        descent: normalised gradient steps for samples that the linear model did not solve.
        probes: forward passes at most for each search along a ray.
    """

    classes: int
    approach: int
    keep: int
    polish: int
    descent: int
    probes: int = 4


SETTINGS = {
    "fast": Effort(classes=4, approach=5, keep=3, polish=8, descent=40),
    "thorough": Effort(classes=0, approach=12, keep=3, polish=20, descent=150),
}
SMALLEST_SHARE = 1 / 8  # a row whose step was halved this far is finished
PROMISING = 1.3  # rows further than this times the best of their sample are not polished
NOISES = 4  # noise images asked where nothing was found
HARD = 0.05  # KKT residual above which a sample is given to the descent
STRETCH = (1.2, 1.5, 2.0, 3.0, 5.0, 10.0)  # factors tried where the approach stopped short of a boundary


def minimal_norm(search: Search, effort: Effort, damping: float) -> Tensor:
    """Run the whole minimal-norm search: clean linearisation, approach, polish; one row for each sample is left.

    Returns:
        (samples,) float64, KKT residual 1 − ‖δ_lin‖ / ‖δ‖ of the best points: the share by which the linear model at
        the point still promises to shorten it; +inf where nothing was found.
    """
    clean, candidate = _first_planes(search, effort)
    last = _approach(search, candidate, clean, effort.approach, damping)
    _stretch(search, last)
    _keep_best(search, effort.keep)
    kkt = torch.full_like(search.best, torch.inf)
    rows = torch.isfinite(search.best).nonzero().squeeze(1)
    search.ray(rows, search.best_x[rows], evaluations=effort.probes)
    _polish(search, effort, rows[_promising(search)[rows]], kkt)
    order = _best_of_each_sample(search)
    search.keep_rows(order)
    kkt = kkt[order]
    hard = (kkt > HARD).nonzero().squeeze(1)
    if len(hard):
        _anywhere(search, effort.probes)
        descend(search, hard, effort.descent)
        found = hard[torch.isfinite(search.best[hard])]
        search.ray(found, search.best_x[found], evaluations=effort.probes)
        _polish(search, effort, found, kkt)
    return kkt


def _first_planes(search: Search, effort: Effort) -> tuple[Plane, Tensor | None]:
    """Linearise all classes at the clean inputs; leave a row for each of the nearest classes of each sample."""
    model, x = search.model, search.x0
    rows = torch.arange(len(x), device=x.device)
    if search.target is not None:
        return search.plane(rows, x), None
    linear = linearise(model, x)
    logits = linear.logits
    batch, classes = logits.shape
    search.count_all(forwards=1, backwards=classes)
    eye = torch.eye(classes, dtype=logits.dtype, device=logits.device)
    gradients = linear.vjp(eye.expand(batch, -1, -1)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    own = search.y[:, None]
    search.repeat_rows(classes)
    rows = torch.arange(batch * classes, device=x.device)
    margin = (logits.gather(1, own) - logits).reshape(-1)
    own_gradient = gradients[torch.arange(batch, device=x.device), search.y[::classes]]
    difference = (own_gradient[:, None] - gradients).reshape(-1, *x.shape[1:])
    tolerance = search.tolerance(logits).repeat_interleave(classes)
    plane = search.project(rows, search.x0, margin, difference, tolerance)
    rank = _rank(search, plane).reshape(batch, classes).scatter(1, own, torch.inf)
    count = min(effort.classes or classes - 1, classes - 1)
    nearest = rank.argsort(dim=1, stable=True)[:, :count]
    keep = (torch.arange(batch, device=x.device)[:, None] * classes + nearest).reshape(-1)
    search.keep_rows(keep)
    return plane.take(keep), nearest.reshape(-1)


def _rank(search: Search, plane: Plane) -> Tensor:
    """Order classes by the distance of their linear boundary within the box; those it misses come after, by g / ‖G‖."""
    lo, hi = search.model.bounds
    corner = torch.full_like(search.x0[:1], hi - lo)
    box = distance(torch.zeros_like(corner), corner, search.norm)
    free = plane.margin.double() / dual(plane.gradient.flatten(1), search.norm).double()
    free = torch.where(torch.isfinite(free), free, torch.inf)
    return torch.where(plane.feasible, plane.length, box + free)


def _approach(search: Search, candidate: Tensor | None, plane: Plane, iterations: int, damping: float) -> Tensor:
    """Move every row towards its class's boundary: x ← x + β (projection − x), β adapted to the margin's linearity.

    Returns the last projections, (rows, *input_shape).
    """
    rows = torch.arange(len(search.x0), device=search.x0.device)
    x = search.x0
    beta = torch.full((len(rows),), damping, dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        step = per_sample(beta, x) * (plane.point - x)
        predicted = (plane.gradient * step).flatten(1).sum(1)
        x = x + step
        before = plane.margin
        plane = search.plane(rows, x, candidate)
        ratio = (plane.margin - before) / torch.where(predicted == 0, torch.ones_like(predicted), predicted)
        linear = (ratio > 0.7) & (ratio < 1.4)
        beta = torch.where(linear, beta * 1.5, beta * 0.8).clamp(0.3, 1.0)
    search.evaluate(rows, plane.point)
    return plane.point


def _stretch(search: Search, point: Tensor) -> None:
    """For samples of which no row met an adversarial, lengthen the last step until one is met or the box ends."""
    lo, hi = search.model.bounds
    for factor in STRETCH:
        found = torch.zeros(search.samples, dtype=torch.bool, device=point.device)
        found[search.sample[torch.isfinite(search.best)]] = True
        rows = (~found[search.sample]).nonzero().squeeze(1)
        if len(rows) == 0:
            return
        x0 = search.x0[rows]
        search.evaluate(rows, (x0 + factor * (point[rows] - x0)).clamp(lo, hi))


def _anywhere(search: Search, probes: int) -> None:
    """For samples with nothing found: look far from the clean input, where saturation does not hide the gradient.

    The inverted image, black, grey, white and noise are asked, then the boundary on the rays to those that are answered
    otherwise. Each sample is asked the same points in any batch.
    """
    rows = torch.isinf(search.best).nonzero().squeeze(1)
    if len(rows) == 0:
        return
    lo, hi = search.model.bounds
    x0 = search.x0[rows]
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(NOISES, *x0.shape[1:], generator=generator, dtype=torch.float64).to(x0)
    even = [torch.full_like(x0[0], share) for share in (0.0, 0.5, 1.0)]
    search.evaluate(rows, lo + hi - x0)
    for point in (*even, *noise):
        search.evaluate(rows, (lo + (hi - lo) * point).expand_as(x0))
    found = rows[torch.isfinite(search.best[rows])]
    for _ in range(3):
        search.ray(found, search.best_x[found], evaluations=probes)


def _keep_best(search: Search, keep: int) -> None:
    """Leave the `keep` best rows of every sample."""
    per_sample = len(search.x0) // search.samples
    order = search.best.reshape(search.samples, per_sample).argsort(1)[:, :keep]
    search.keep_rows((torch.arange(search.samples, device=order.device)[:, None] * per_sample + order).reshape(-1))


def _best_of_each_sample(search: Search) -> Tensor:
    per_sample = len(search.x0) // search.samples
    best = search.best.reshape(search.samples, per_sample).argmin(1)
    return torch.arange(search.samples, device=best.device) * per_sample + best


def _promising(search: Search) -> Tensor:
    """(rows,) bool: within `PROMISING` times the best distance of the same sample."""
    best = search.best.reshape(search.samples, -1)
    return (best <= PROMISING * best.amin(1, keepdim=True)).reshape(-1)


def _polish(search: Search, effort: Effort, active: Tensor, kkt: Tensor) -> None:
    """Slide along the boundary to a KKT point: project from the clean input, find the boundary again on that ray.

    A step is accepted only if the distance falls; else it is halved. Rows whose residual is small are finished. The
    residuals of the rows `active` are written to `kkt`.
    """
    share = torch.ones(len(search.x0), dtype=search.x0.dtype, device=search.x0.device)
    for _ in range(effort.polish):
        if len(active) == 0:
            return
        x, before = search.best_x[active], search.best[active]
        plane = search.plane(active, x)
        kkt[active] = (1 - plane.length / before).clamp_min(0)
        step = per_sample(share[active], x) * (plane.point - x)
        slope = (plane.gradient * (x + step - search.x0[active])).flatten(1).sum(1)
        search.ray(active, x + step, evaluations=effort.probes, slope=slope)
        better = search.best[active] < before * (1 - 1e-4)
        share[active] = torch.where(better, (share[active] * 2).clamp_max(1.0), share[active] / 2)
        active = active[(kkt[active] > 1e-4) & (share[active] >= SMALLEST_SHARE)]
    if len(active):
        kkt[active] = (1 - search.plane(active, search.best_x[active]).length / search.best[active]).clamp_min(0)
