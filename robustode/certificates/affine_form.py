"""The margins of an sNODE as affine forms of the perturbation, with second order and a rigorous remainder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.deviation import Carried, Deviation, arriving, carry, deviation
from robustode.certificates.expand import Ball, expand
from robustode.certificates.expansion import Expansion
from robustode.certificates.network import network
from robustode.certificates.problem import Problem
from robustode.certificates.rounding import encoded, readout_error, step_error
from robustode.solvers.flow import Flow

SLACK = 1e-7  # relative, for the rounding of float64 sums


@dataclass(frozen=True, kw_only=True, eq=False)
class AffineForm:
    """The margins of a batch of samples as affine forms of the perturbation, ready to be bounded over any ball.

    Attributes:
        problem: the samples.
        flow: of the exact model.
        scale: derivative of the encoding.
        ball: that the fits are for.
        expansion: around the reference trajectories.
        margins: (batch, classes), those of the reference trajectories; inf in column y.
        linear: (batch, classes), what the linear part can take from a margin, by ε.
    """

    problem: Problem
    flow: Flow
    scale: float
    ball: Ball
    expansion: Expansion
    margins: Tensor
    linear: Tensor

    def loss(self, eps: Tensor) -> Tensor:
        """Return an upper bound of what each margin is below `margins` somewhere in the ball of radius ε, (batch,).

        (batch, classes), inf where the deviations outgrow all numbers. The rounding errors of the deployed sweep are
        among the deviations, so that what it computes is covered.
        """
        deviations: list[Deviation] = []
        carried: list[Carried] = []
        radius, stages, expansion = self.ball.ratio * eps, self.flow.tableau.stages, self.expansion
        moved = (abs(self.scale) * eps)[:, None].expand_as(expansion.states[0])
        start = encoded(self.problem, self.flow, expansion.states[0].abs() + moved)
        for number, site in enumerate(expansion.sites):
            n, i = divmod(number, stages)
            self._carry(carried, deviations, radius)
            error = arriving(site.sources, carried, radius) + (start.stages[i] if n == 0 else 0.0)
            found = deviation(self.flow.activation, site, site.below * eps[:, None], site.above * eps[:, None], error)
            if i == stages - 1:  # what the step does wrong arrives with its last value
                wrong = step_error(self.problem, self.flow, n, expansion.states[n].abs() + moved)
                wrong = wrong + start.step if n == 0 else wrong
                found = found.with_error(wrong / (self.flow.step * self.flow.tableau.b[-1]))
            deviations.append(found)
            if i == stages - 1:
                moved = self._after(moved, deviations[-stages:])
        self._carry(carried, deviations, radius)
        error = arriving(expansion.outputs, carried, radius)
        error = error + readout_error(self.problem, expansion.states[-1].abs() + moved)[:, None]
        return ((self.linear * eps[:, None] + error) * (1 + SLACK)).nan_to_num(nan=torch.inf)

    def _carry(self, carried: list[Carried], deviations: list[Deviation], radius: Tensor) -> None:
        """Carry the groups on whose sites are all known."""
        groups = self.expansion.groups
        while len(carried) < len(groups) and groups[len(carried)].sites[-1] < len(deviations):
            carried.append(carry(groups[len(carried)], self.expansion.sites, deviations, radius))

    def _after(self, moved: Tensor, values: list[Deviation]) -> Tensor:
        """Return the bound of the distance from the reference one step after `moved`."""
        for value, b in zip(values, self.flow.tableau.b, strict=True):
            moved = moved + self.flow.step * abs(b) * value.moved
        return moved


def affine_form(problem: Problem, eps: Tensor) -> AffineForm:
    """Return the margins of a problem as affine forms fitted for balls of radius ε, (batch,).

    The model is a dense sNODE with bounded curvature. With ε = 0 the forms are the tangents at the samples.
    """
    model = network(problem)
    flow, x0 = model.flow, model.encode(problem.x)
    eye = torch.eye(x0.shape[1], dtype=x0.dtype, device=x0.device)[: model.classes]
    low, high = (bound - problem.x.flatten(1) for bound in model.bounds)
    ball = Ball(eps=eps, norm=problem.norm, low=low.clamp(max=0), high=high.clamp(min=0))
    expansion = expand(flow, ball, x0, model.encoding_scale, eye[problem.y][:, None] - eye[None])
    return AffineForm(
        problem=problem,
        flow=flow,
        scale=model.encoding_scale,
        ball=ball,
        expansion=expansion,
        margins=expansion.values.scatter(1, problem.y[:, None], torch.inf),
        linear=ball.support(-expansion.linear),
    )
