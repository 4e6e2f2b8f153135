"""A tube around the trajectory of a sample: how far those of a whole ball of inputs can be from it, by depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robustode.certificates.gauge import Gauge, margin_widths
from robustode.certificates.linear import linear
from robustode.certificates.network import network
from robustode.certificates.problem import Problem
from robustode.certificates.rounding import input_error, readout_error, stage_errors, step_error
from robustode.certificates.slopes import slope_range
from robustode.certificates.steps import Slopes, all_slopes, moved_step, step_constant
from robustode.solvers.flow import Flow

HUGE = 1e150  # no tube is made wider, so that no NaN arises
HOPELESS = 1e120  # a rate as large as this certifies nothing
Scales = Sequence[Sequence[Tensor]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift:
    """How far margins can move in a ball of radius ε, (batch, classes) each: rate · ε + rounding.

    Both hold for every smaller ε as well.
    """

    rate: Tensor
    rounding: Tensor

    def certified(self, margins: Tensor) -> Tensor:
        """Return the largest radii, up to ε, for which margins (batch, classes) stay positive, 0 without one."""
        found = (margins - self.rounding).clamp(min=0) / self.rate.clamp(min=1e-300)
        return found.nan_to_num(0.0, posinf=torch.inf).where(self.rate < HOPELESS, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One step of the nominal trajectory.

    Attributes:
        state: x_n, (batch, *state).
        pre: pre-activations of its stages, each (batch, *state).
        off: how far rounding may have taken each from that of the exact step, likewise.
    """

    state: Tensor
    pre: tuple[Tensor, ...]
    off: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Path:
    """The nominal trajectories of samples: their steps, and x_N, (batch, *state)."""

    steps: tuple[Step, ...]
    final: Tensor


def nominal(problem: Problem, flow: Flow) -> Path:
    """Return the samples' trajectories in float64."""
    x = network(problem).encode(problem.x)
    steps = []
    for n in range(flow.steps):
        values: list[Tensor] = []
        pre: list[Tensor] = []
        for i in range(flow.tableau.stages):
            z = x
            for a, value in zip(flow.tableau.a[i], values, strict=True):
                z = z + flow.step * a * value
            pre.append(flow.operator.affine(z, *flow.parameters(n, i)))
            values.append(flow.activation.apply(pre[-1]))
        steps.append(Step(state=x, pre=tuple(pre), off=tuple(stage_errors(flow, n, x.abs())[0])))
        for b, value in zip(flow.tableau.b, values, strict=True):
            x = x + flow.step * b * value
    return Path(steps=tuple(steps), final=x)


def norm_drift(
    problem: Problem,
    flow: Flow,
    path: Path,
    gauge: Gauge,
    eps: Tensor,
    constants: Tensor,
    local: bool = False,
    scales: Scales | None = None,
) -> Drift:
    """Return how far the margins can move in balls of radii `eps`, by a tube in a norm.

    The tube has radius ρ_0 = start · ε; ρ_{n+1} = L_n ρ_n + rounding, where L_n is `constants[n]`, or the Lipschitz
    constant of step n for slopes within ‖K_i‖* ρ_n of the nominal pre-activations where that is less.

    Args:
        problem: names the arithmetic.
        flow: in float64.
        path: nominal trajectories.
        gauge: the norm.
        eps: (batch,).
        constants: (steps,), for all slopes.
        local: whether slopes are those within the tube; else all.
        scales: Λ of every step and stage for L2; without, no eigenproblems are solved for the samples.
    """
    rate, axes = torch.full_like(eps, gauge.start), beside(path.final)
    radius = rate * eps
    error = length(input_error(problem, path.steps[0].state.abs() + radius[axes]), gauge.norm)
    for n, step in enumerate(path.steps):
        radius = (rate * eps + error).clamp(max=HUGE)
        constant = constants[n]
        if local:
            slopes = partial(_within, flow, n, step, radius, gauge.norm)
            own = step_constant(
                flow, n, gauge.norm, slopes, None if scales is None else scales[n], eigen=scales is not None
            )
            constant = torch.minimum(constant, own)
        fresh = length(step_error(problem, flow, n, step.state.abs() + radius[axes]), gauge.norm)
        rate, error = (constant * rate).clamp(max=HUGE), (constant * error + fresh).clamp(max=HUGE)
    widths = margin_widths(problem, gauge.norm)
    reading = readout_error(problem, path.final.abs() + (rate * eps + error)[axes])
    return Drift(rate=widths * rate[:, None], rounding=widths * error[:, None] + reading[:, None])


def component_drift(problem: Problem, flow: Flow, path: Path, eps: Tensor, local: bool) -> Drift:
    """Return how far the margins can move in L∞ balls of radii `eps`, by a tube with a radius for every component.

    It is the tube in the best of all L∞ norms with diagonal weights, which may change in depth: |d_{n+1}| ≤
    sup |I + h diag(s) K| |d_n|.

    Args:
        problem, flow, path, eps: as for `norm_drift`.
        local: whether slopes are those within the tube; else all.
    """
    model, axes = network(problem), beside(path.final)
    rate = torch.full_like(path.final, abs(model.encoding_scale) * (1 + 2.0**-50))
    if problem.x[0].numel() < path.final[0].numel():  # a lift that leaves components at zero
        rate = model.lift(torch.ones_like(problem.x)) * rate
    error = input_error(problem, path.steps[0].state.abs() + rate * eps[axes])
    every = all_slopes(flow, tuple(path.final.shape[1:]))
    for n, step in enumerate(path.steps):
        radius = (rate * eps[axes] + error).clamp(max=HUGE)
        boxes: list[Slopes] = []

        def slopes(i: int, size: Tensor, n: int = n, step: Step = step, boxes: list[Slopes] = boxes) -> Slopes:
            part = linear(flow, n, i)
            half = part.rows(size) + part.diagonal.abs() * size * (1 + part.slack) + step.off[i]
            boxes.append(slope_range(flow.activation.name, step.pre[i] - half, step.pre[i] + half))
            return boxes[-1]

        if local:
            moved_step(flow, n, radius, slopes)
        else:
            boxes += [every] * flow.tableau.stages
        fresh = step_error(problem, flow, n, step.state.abs() + radius)
        rate, error = (
            moved_step(flow, n, v, lambda i, size, boxes=boxes: boxes[i]).clamp(max=HUGE) for v in (rate, error)
        )
        error = error + fresh
    reading = readout_error(problem, path.final.abs() + rate * eps[axes] + error)
    return Drift(rate=_pairs(problem, rate), rounding=_pairs(problem, error) + reading[:, None])


def _pairs(problem: Problem, size: Tensor) -> Tensor:
    """Return how far z_y − z_k moves, (batch, classes), where the final states move by `size`."""
    model = network(problem)
    moved = model.read(size)[:, : model.classes] * (1 + 2.0**-40)
    return moved.gather(1, problem.y[:, None]) + moved


def _within(flow: Flow, n: int, step: Step, radius: Tensor, norm: str, i: int, growth: Tensor) -> Slopes:
    """Return the ranges of the slopes of stage i where its input is within growth · radius of the nominal one."""
    reach = (growth * radius)[beside(step.state)]
    half = linear(flow, n, i).row_norms(norm) * reach * (1 + 2.0**-40) + step.off[i]
    return slope_range(flow.activation.name, step.pre[i] - half, step.pre[i] + half)


def length(error: Tensor, norm: str) -> Tensor:
    """Return an upper bound of the norms of states, (batch,)."""
    order = {"l1": 1, "l2": 2, "linf": torch.inf}[norm]
    return torch.linalg.vector_norm(error.flatten(1), ord=order, dim=1) * (1 + 2.0**-40)


def beside(state: Tensor) -> tuple:
    """Return the index that gives (batch,) the axes of states."""
    return (slice(None), *(None,) * (state.dim() - 1))
