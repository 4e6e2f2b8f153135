"""Bounds of the flow, the exact solution of the ODE, by Grönwall's inequality with log norms."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from robustode.certificates.bound import Bound, ClassRadii
from robustode.certificates.cache import remembered
from robustode.certificates.enclosure import PIECES, WINDOWS, Enclosure, Window, enclose, weights_at
from robustode.certificates.gauge import Gauge, gauges, margin_widths
from robustode.certificates.linear import UNIT, Linear
from robustode.certificates.lognorm import log_norm
from robustode.certificates.network import network, refuses_flow, state_shape
from robustode.certificates.problem import Problem
from robustode.certificates.rounding import input_error
from robustode.certificates.search import largest_radii
from robustode.certificates.slopes import slope_range
from robustode.certificates.sweep import HUGE, Drift, beside, length
from robustode.certificates.tube import CHEAP_ROUNDS, EIGEN_FEATURES, ROUNDS, by_chunks
from robustode.models.snode import SNODE
from robustode.sensitivity.norms import NORMS


def global_radii(problem: Problem) -> ClassRadii:
    """Return the radii margin_k / (‖e_y − e_k‖* exp ∫ μ(t) dt), μ(t) the log norm for all slopes."""
    return _over_chunks(problem, local=False)


def tube_radii(problem: Problem) -> ClassRadii:
    """Return the radii by ρ' = μ ρ + defect, with μ for the slopes within ‖w_i‖* ρ of those of the sample's path."""
    return _over_chunks(problem, local=True)


def knot_log_norms(model: SNODE, state: tuple[int, ...], norm: str) -> Tensor:
    """Return μ for all slopes at every knot, (knots,): between knots it is below their interpolation, being convex."""
    ends = torch.full(state, torch.inf, dtype=torch.float64, device=model.weight.device)
    low, high = slope_range(model.config["activation"], -ends, ends)
    parts = (Linear(operator=model.operator, weight=weight) for weight in model.weight.detach())
    return torch.stack([log_norm(part, low, high, norm) for part in parts])


def _over_chunks(problem: Problem, local: bool) -> ClassRadii:
    model, features = network(problem), torch.Size(state_shape(problem)).numel()
    row = 8 * features * (8 * WINDOWS + 64 + (8 * features if features <= EIGEN_FEATURES else 0))
    return by_chunks(problem, row, lambda part: _radii(part, model, local))


def _radii(problem: Problem, model: SNODE, local: bool) -> ClassRadii:
    path = enclose(model, problem.x)
    logits = model.read(path.final)[:, : model.classes]
    margins = (logits.gather(1, problem.y[:, None]) - logits).scatter(1, problem.y[:, None], torch.inf)
    radius, passes = torch.zeros_like(margins), torch.full_like(margins[:, 0], 12.0 * PIECES / model.steps)
    for gauge in gauges(problem):
        name = f"log-norms-{gauge.norm}"
        at_knots = remembered(problem, name, partial(knot_log_norms, model, tuple(path.final.shape[1:]), gauge.norm))
        drift = _grown(problem, path, gauge, at_knots, None)
        radius = torch.maximum(radius, drift.certified(margins))
        if local:
            heavy = gauge.norm == "l2" and model.operator.dims == 1 and path.final[0].numel() <= EIGEN_FEATURES
            rounds = ROUNDS if heavy else CHEAP_ROUNDS
            grown = partial(_grown, problem, path, gauge, at_knots)
            radius = torch.maximum(
                radius, largest_radii(lambda eps, grown=grown: grown(eps).certified(margins), margins[:, 0] * 0, rounds)
            )
            cost = 6.0 * path.final[0].numel() if heavy else 12.0
            passes = passes + (rounds + 1) * cost * len(path.windows) / model.steps
    return ClassRadii(radius=radius, passes=passes)


def _grown(problem: Problem, path: Enclosure, gauge: Gauge, at_knots: Tensor, eps: Tensor | None) -> Drift:
    """Return how far margins of solutions from balls of radii `eps` can be from the path's; None takes all slopes."""
    rate = torch.full((len(path.final),), gauge.start, dtype=torch.float64, device=path.final.device)
    error = length(input_error(problem, network(problem).encode(problem.x).abs(), UNIT), gauge.norm)
    for window in path.windows:
        ends = torch.stack([_interpolated(at_knots, end) for end in window.ends])
        apart = length(window.defect, gauge.norm)
        while_within = (window.length * ends.max().clamp(min=0)).exp()
        growth = (window.length * ends.mean()).exp()
        if eps is not None:
            radius = ((rate * eps + error + apart) * while_within).clamp(max=HUGE)
            local = _local_log_norms(network(problem), window, gauge.norm, radius)
            growth = torch.minimum(growth, (window.length * local.mean(0)).exp())
            while_within = torch.minimum(while_within, (window.length * local.amax(0).clamp(min=0)).exp())
        growth, while_within = growth * (1 + 2.0**-48), while_within * (1 + 2.0**-48)
        rate, error = (growth * rate).clamp(max=HUGE), (growth * error + while_within * apart).clamp(max=HUGE)
    widths = margin_widths(problem, gauge.norm)
    reading = 2.0**-50 * (8 + path.final[0, 0].numel()) * path.final.abs().flatten(1).amax(1)
    return Drift(rate=widths * rate[:, None], rounding=widths * error[:, None] + reading[:, None])


def _local_log_norms(model: SNODE, window: Window, norm: str, radius: Tensor) -> Tensor:
    """Return μ at both ends of a window for the slopes within `radius` of the path anywhere in it, (2, batch)."""
    parts = [weights_at(model, end)[0] for end in window.ends]
    half = torch.maximum(*(part.row_norms(norm) for part in parts)) * radius[beside(window.low)]
    low, high = slope_range(model.config["activation"], window.low - half, window.high + half)
    found = []
    for part in parts if window.ends[0] != window.ends[1] else parts[:1]:
        cheap = norm == "l2" and part.dense and window.low[0].numel() <= EIGEN_FEATURES
        scales = torch.linalg.vector_norm(part.weight, dim=-1).clamp(min=1e-300) if cheap else None
        found.append(log_norm(part, low, high, norm, scales, eigen=cheap))
    return torch.stack(found if len(found) == 2 else found * 2)


def _interpolated(values: Tensor, position: tuple[int, float]) -> Tensor:
    k, w = position
    if not w:
        return values[k]
    return (1 - w) * values[k] + w * values[k + 1] + 2.0**-50 * (values[k].abs() + values[k + 1].abs())


BOUNDS = tuple(
    Bound(
        name=name,
        title=title,
        certifies="flow",
        norms=NORMS,
        source="Söderlind, BIT 46 (2006), with a bounded defect in place of an exact solution",
        refuses=refuses_flow,
        radii=radii,
        covered_by=covered_by,
    )
    for name, title, radii, covered_by in (
        ("lognorm-global", "log norm for all slopes, Grönwall", global_radii, ("lognorm-tube",)),
        ("lognorm-tube", "log norm within the tube of the ball, Grönwall", tube_radii, ()),
    )
)
