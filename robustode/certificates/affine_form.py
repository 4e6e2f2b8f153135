"""The margins of an sNODE as affine forms of the perturbation, with second order and a rigorous remainder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.box import support
from robustode.certificates.deviation import Carried, Deviation, carry, deviation
from robustode.certificates.expand import expand
from robustode.certificates.expansion import Arrival, Expansion
from robustode.certificates.network import network
from robustode.certificates.problem import Problem
from robustode.certificates.rounding import encoded, readout_error, step_error
from robustode.solvers.flow import Flow

SLACK = 1e-7  # relative, for the rounding of float64 sums
UP = 1 + 2.0**-12  # for sums in float32


@dataclass(frozen=True, kw_only=True, eq=False)
class AffineForm:
    """The margins of a batch of samples as affine forms of the perturbation, ready to be bounded over any ball.

    Attributes:
        problem: the samples.
        flow: of the exact model.
        scale: derivative of the encoding.
        expansion: of the nominal trajectories.
        name: of the activation.
        above, below: for each site, (batch, features): G δ ≤ above · ε and ≥ −below · ε in the ball.
        linear: (batch, classes), what the linear part can take from a margin, by ε.
        ratio: ‖δ‖₂ ≤ ratio · ε.
    """

    problem: Problem
    flow: Flow
    scale: float
    expansion: Expansion
    name: str
    above: tuple[Tensor, ...]
    below: tuple[Tensor, ...]
    linear: Tensor
    ratio: float

    def loss(self, eps: Tensor) -> Tensor:
        """Return an upper bound of what each margin loses over the ball of radius ε, (batch,): (batch, classes).

        inf where the deviations outgrow all numbers.

        The rounding errors of the deployed sweep are among the deviations, so that what it computes is covered.
        """
        deviations: list[Deviation] = []
        carried: dict[int, Carried] = {}
        radius, stages = self.ratio * eps, self.flow.tableau.stages
        errors = encoded(self.problem, self.flow, self.expansion.states[0].abs() + self._moved(eps))
        moved = self._moved(eps)
        for number, site in enumerate(self.expansion.sites):
            n, i = divmod(number, stages)
            error = self._arriving(site.sources, deviations, carried, radius)
            if n == 0:
                error = error + errors.stages[i]
            up, down = self.above[number] * eps[:, None], self.below[number] * eps[:, None]
            deviations.append(deviation(self.name, site.pre, site.curvature, up, down, error))
            if i == stages - 1:  # what the step does wrong arrives with its last value
                wrong = step_error(self.problem, self.flow, n, self.expansion.states[n].abs() + moved)
                wrong = wrong + errors.step if n == 0 else wrong
                deviations[-1] = deviations[-1].with_error(wrong / (self.flow.step * self.flow.tableau.b[-1]))
                moved = self._after(moved, deviations[-stages:], number, eps)
        error = self._arriving(self.expansion.outputs, deviations, carried, radius)
        error = error + readout_error(self.problem, self.expansion.states[-1].abs() + moved)[:, None]
        return ((self.linear * eps[:, None] + error) * (1 + SLACK)).nan_to_num(nan=torch.inf)

    def _moved(self, eps: Tensor) -> Tensor:
        """Return a bound of |x(0) − x̂(0)|, (batch, features)."""
        return (abs(self.scale) * eps)[:, None].expand_as(self.expansion.states[0])

    def _after(self, moved: Tensor, values: list[Deviation], last: int, eps: Tensor) -> Tensor:
        """Return the bound of |x − x̂| one step after `moved`: each value moves by at most σ' G δ and its deviation."""
        for i, (value, b) in enumerate(zip(values, self.flow.tableau.b, strict=True)):
            number = last - len(values) + 1 + i
            site = self.expansion.sites[number]
            reach = torch.maximum(self.above[number], self.below[number]) * eps[:, None] + value.error
            moved = moved + self.flow.step * abs(b) * (site.slope * reach + value.total)
        return moved

    def _arriving(
        self,
        sources: tuple[Arrival, ...],
        deviations: list[Deviation],
        carried: dict[int, Carried],
        radius: Tensor,
    ) -> Tensor:
        """Return a bound of Σ y_m q_m for every output: of second order in Frobenius norm, and of the rest; or plainly
        of |y_m| |q_m| where that is less."""
        fine = plain = radius.new_zeros(1, 1)
        for arrival in sources:
            if arrival.group not in carried:
                carried[arrival.group] = carry(self.expansion, self.expansion.groups[arrival.group], deviations, radius)
            at = carried[arrival.group]
            y = arrival.absolute
            columns = torch.stack([at.total, at.third, at.beside], 2).float() * UP
            total, third, beside = (y @ columns).double().unbind(2)
            joint = (y.square() @ (at.square.float() * UP)[:, :, None])[:, :, 0].double().sqrt() + beside
            fine = fine + torch.minimum(third, joint) + arrival.frobenius * (radius.square() / 2)[:, None]
            plain = plain + total
        return torch.minimum(fine, plain)


def affine_form(problem: Problem) -> AffineForm:
    """Return the margins of a problem as affine forms; the model is a dense sNODE with bounded curvature.

    Its column y is of no use.
    """
    model = network(problem)
    flow, name = model.flow, model.config["activation"]
    x0 = model.encode(problem.x)
    eye = torch.eye(x0.shape[1], dtype=x0.dtype, device=x0.device)[: model.classes]
    expansion = expand(flow, name, x0, model.encoding_scale, eye[problem.y][:, None] - eye[None])
    lo, hi = model.bounds
    low, high = (lo - problem.x.flatten(1)).clamp(max=0), (hi - problem.x.flatten(1)).clamp(min=0)
    return AffineForm(
        problem=problem,
        flow=flow,
        name=name,
        scale=model.encoding_scale,
        expansion=expansion,
        above=tuple(support(site.forms, low, high, problem.norm) for site in expansion.sites),
        below=tuple(support(-site.forms, low, high, problem.norm) for site in expansion.sites),
        linear=support(-expansion.linear, low, high, problem.norm),
        ratio=x0.shape[1] ** 0.5 if problem.norm == "linf" else 1.0,
    )
