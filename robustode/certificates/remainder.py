"""What the discrete map does to margins beyond first order: a rigorous remainder, carried along the depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.first_order import FirstOrder, StepForm
from robustode.certificates.linear import UNIT, Linear, linear
from robustode.certificates.problem import Problem
from robustode.certificates.rounding import input_error, readout_error, stage_errors, step_error
from robustode.certificates.slopes import mean_curvature_range, slope_range
from robustode.certificates.steps import moved_step
from robustode.certificates.sweep import beside, length
from robustode.solvers.flow import Flow

SLOPE_ERROR = 32 * UNIT  # of a slope below 1 in size, and of what is made of it
UP = 1 + 2.0**-36  # for sums of nonnegative terms


@dataclass(frozen=True, kw_only=True, eq=False)
class Bend:
    """Bounds of q in Δσ = σ'(a) Δa + q at one stage, (batch, *state): −fall ≤ q ≤ rise."""

    fall: Tensor
    rise: Tensor

    @property
    def size(self) -> Tensor:
        """Of |q|."""
        return torch.maximum(self.fall, self.rise)


@dataclass(frozen=True, kw_only=True, eq=False)
class _State:
    """How far the state of any input of the ball is from that to first order: in L2, (batch,), and componentwise."""

    length: Tensor
    parts: Tensor


def remainder(problem: Problem, flow: Flow, first: FirstOrder, eps: Tensor) -> Tensor:
    """Return what margins lose beyond first order, at most, in balls of radii ε (batch,): (batch, classes).

    With Δa the change of a stage's pre-activation and q = ½ c Δa² what its value changes beyond σ'(a) Δa, margins
    change by λ(0) · δ + h Σ μ · q exactly, over all steps and stages. |Δa| ≤ |G δ| + |K e|, where e, what states change
    beyond first order, is carried by the norms of the steps' Jacobians, and by their sizes componentwise. Rounding
    errors of the deployed map, of the nominal trajectory, of tangents and of cotangents are added to q, to e and to the
    result. NaN or inf where numbers overflow.

    Source: Cao and Petzold, SIAM J. Sci. Comput. 26 (2004), for errors estimated by adjoints.
    """
    axes = beside(first.final)
    error = input_error(problem, first.steps[0].state.abs() + first.steps[0].moved.wide * eps[axes])
    off = _State(length=length(error, "l2"), parts=error)
    total = (first.steps[0].pull.before.abs().amax(1) * error).flatten(1).sum(1)[:, None]
    for n, step in enumerate(first.steps):
        off, lost = _advance(problem, flow, n, step, off, eps[axes])
        total = total + lost
    reach = first.final.abs() + first.moved.wide * eps[axes] + off.parts
    total = total + 8 * UNIT * (first.steps[-1].pull.after.abs().amax(1) * reach).flatten(1).sum(1)[:, None]
    return (total + readout_error(problem, reach)[:, None]) * UP


def _advance(problem: Problem, flow: Flow, n: int, step: StepForm, off: _State, eps: Tensor) -> tuple[_State, Tensor]:
    """Return how far states are from first order after step n, and what the step takes from the margins."""
    h, tableau, pull = flow.step, flow.tableau, step.pull
    moving = sum((h * s * reach.wide for s, reach in zip(step.slopes, step.reaches, strict=True)), step.moved.wide)
    reach = step.state.abs() + moving * eps + off.parts
    noises, noise = stage_errors(flow, n, reach)
    fresh = step_error(problem, flow, n, reach) + noise
    lost = (pull.after.abs().amax(1) * fresh + 4 * (tableau.stages + 4) * UNIT * pull.size * reach).flatten(1).sum(1)
    lost = lost[:, None]
    own: list[Tensor] = []  # of the values, by the bends of this step alone
    whole: list[Tensor] = []
    for i in range(tableau.stages):
        part = linear(flow, n, i)
        alone, inner = (_sum(tableau.a[i], values, h, off.parts) for values in (own, whole))
        response = _product(part, alone)
        across = step.norms.rows[i] * off.length[beside(reach)] + response
        error = torch.minimum(across, _product(part, off.parts + inner)) + noises[i]
        bend = _bend(flow, step, i, error, noises[i], eps)
        lost = lost + h * _weighed(pull.values[i], bend)
        pairs = step.slopes[i] * _product(part, reach + inner) + bend.size
        lost = lost + h * 8 * (part.terms + 64) * UNIT * (pull.sizes[i] * pairs).flatten(1).sum(1)[:, None]
        own.append(step.slopes[i] * response + bend.size)
        whole.append(step.slopes[i] * error + bend.size)
    added = _sum(tableau.b, own, h, off.parts) + fresh
    parts = moved_step(flow, n, off.parts, lambda i, size: (step.slopes[i], step.slopes[i])) + added
    across = step.norms.whole * off.length + length(added, "l2")
    across = torch.minimum(across, length(parts, "l2")) * UP
    return _State(length=across, parts=torch.minimum(parts * UP, across[beside(parts)])), lost


def _bend(flow: Flow, step: StepForm, i: int, error: Tensor, noise: Tensor, eps: Tensor) -> Bend:
    """Return the bounds of q of a stage whose pre-activation is within `error` of that to first order.

    q = ½ c Δa² with a mean curvature c, and (s − σ'(a)) Δa with a slope s that is taken in between: the less of both.
    `noise` is how far the nominal pre-activation is from that of the exact step.
    """
    name, pre = flow.activation.name, step.pre[i]
    above, below = step.reaches[i].above * eps + error, step.reaches[i].below * eps + error
    away = torch.maximum(above, below)
    least, most = mean_curvature_range(name, pre, below, above)
    low, high = (slope - step.slopes[i] for slope in slope_range(name, pre - below, pre + above))
    rise = torch.maximum(high.clamp(min=0) * above, (-low).clamp(min=0) * below)
    fall = torch.maximum((-low).clamp(min=0) * above, high.clamp(min=0) * below)
    extra = torch.maximum(least.abs(), most.abs()) * noise.square() + SLOPE_ERROR * away
    fall = torch.minimum(fall, (-least).clamp(min=0) / 2 * away.square()) + extra
    rise = torch.minimum(rise, most.clamp(min=0) / 2 * away.square()) + extra
    return Bend(fall=fall * UP, rise=rise * UP)


def _weighed(adjoint: Tensor, bend: Bend) -> Tensor:
    """Return the most that margins lose by q: where it falls if they rise with it, else where it rises."""
    falls = adjoint.clamp(min=0).flatten(2) @ bend.fall.flatten(1)[:, :, None]
    rises = (-adjoint).clamp(min=0).flatten(2) @ bend.rise.flatten(1)[:, :, None]
    return (falls + rises)[:, :, 0]


def _product(part: Linear, size: Tensor) -> Tensor:
    return (part.rows(size) + part.diagonal.abs() * size) * (1 + part.slack)


def _sum(shares: Sequence[float], values: Sequence[Tensor], h: float, like: Tensor) -> Tensor:
    total = torch.zeros_like(like)
    for share, value in zip(shares, values, strict=True):
        total = total + h * abs(share) * value
    return total
