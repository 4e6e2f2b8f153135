"""The discrete map of an sNODE to first order around samples, with all that bounds what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.box import support
from robustode.certificates.network import network
from robustode.certificates.problem import Problem
from robustode.certificates.sensitivities import UP, Pull, Reach, pulls, reaches, room
from robustode.certificates.slopes import slope_range
from robustode.certificates.step_norms import StepNorms, step_norms
from robustode.certificates.sweep import Path, nominal
from robustode.solvers.flow import Flow


@dataclass(frozen=True, kw_only=True, eq=False)
class StepForm:
    """One step around the samples.

    Attributes:
        state: x_n of the nominal trajectory, (batch, *state).
        moved: how far it moves.
        pre, slopes: a and σ'(a) of its stages.
        reaches: how far these a move.
        pull: of the margins' cotangents through it.
        norms: of its Jacobian along the slopes.
    """

    state: Tensor
    moved: Reach
    pre: tuple[Tensor, ...]
    slopes: tuple[Tensor, ...]
    reaches: tuple[Reach, ...]
    pull: Pull
    norms: StepNorms


@dataclass(frozen=True, kw_only=True, eq=False)
class FirstOrder:
    """The discrete map around a batch of samples.

    Attributes:
        steps: in order.
        final: x_N of the nominal trajectory, (batch, *state).
        moved: how far it moves.
        linear: (batch, classes), what the margins z_y − z_k lose to first order, at most, by ε.
        margins: (batch, classes), inf in the column of the label.
    """

    steps: tuple[StepForm, ...]
    final: Tensor
    moved: Reach
    linear: Tensor
    margins: Tensor


def first_order(problem: Problem, *, whole: bool) -> FirstOrder:
    """Return the discrete map of a problem's model to first order around its samples.

    Args:
        problem: of an sNODE on a fixed grid.
        whole: whether the Jacobians of the steps are formed, see `step_norms`.
    """
    model = network(problem)
    flow, path = model.flow, nominal(problem, model.flow)
    slopes = [tuple(_slope(flow, pre) for pre in step.pre) for step in path.steps]
    pulled = list(pulls(flow, slopes, _differences(problem)))[::-1]
    *moving, (moved, _) = reaches(problem, flow, slopes)
    steps = []
    for n, step in enumerate(path.steps):
        steps.append(
            StepForm(
                state=step.state,
                moved=moving[n][0],
                pre=step.pre,
                slopes=slopes[n],
                reaches=moving[n][1],
                pull=pulled[n],
                norms=step_norms(flow, n, slopes[n], whole=whole),
            )
        )
    gradient = (model.lift_transposed(pulled[0].before) * model.encoding_scale).flatten(2)
    return FirstOrder(
        steps=tuple(steps),
        final=path.final,
        moved=moved,
        linear=support(-gradient, *room(problem), problem.norm) * UP,
        margins=_margins(problem, path),
    )


def _slope(flow: Flow, pre: Tensor) -> Tensor:
    low, high = slope_range(flow.activation.name, pre, pre)
    return (low + high) / 2


def _margins(problem: Problem, path: Path) -> Tensor:
    model = network(problem)
    logits = model.read(path.final)[:, : model.classes]
    return (logits.gather(1, problem.y[:, None]) - logits).scatter(1, problem.y[:, None], torch.inf)


def _differences(problem: Problem) -> Tensor:
    """Return ∂(z_y − z_k)/∂x(T), (batch, classes, *state)."""
    model = network(problem)
    vectors = model.config.get("channels", problem.x[0].numel())
    same = torch.eye(model.classes, vectors, dtype=torch.float64, device=problem.x.device)
    return model.read_transposed(same[problem.y][:, None] - same)
