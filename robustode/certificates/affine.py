"""The affine form in depth: linear in the input, with its second order in the Frobenius norm and a rigorous remainder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.bound import Bound, ClassRadii
from robustode.certificates.box import support
from robustode.certificates.problem import Problem
from robustode.certificates.sites import Arrival, Expansion, Group, expand, expansion_bytes
from robustode.certificates.slopes import has_curvature, mean_curvature_range
from robustode.models.snode import SNODE
from robustode.solvers.operators import Dense

MEMORY = 2 * 2**30  # bytes that the expansions of a chunk of samples may take
SLACK = 1e-7  # relative, for the rounding of float64 sums
TRIALS = 10  # radii tried for each sample
FAR = 1e6  # largest radius tried


@dataclass(frozen=True, kw_only=True, eq=False)
class _Deviation:
    """Bounds of q at one site over the ball: q = τ ∘ (G δ) + u + ½ σ'' (G δ)².

    Attributes:
        total: of |q|, (batch, features).
        third: of |τ ∘ (G δ) + u|.
        factor: of |τ|.
        rest: of |u|.
    """

    total: Tensor
    third: Tensor
    factor: Tensor
    rest: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Carried:
    """The deviations of a group as they arrive at its end, (batch, features) each."""

    total: Tensor
    third: Tensor
    square: Tensor  # Σ (v_m ‖G_m‖ r |τ_m|)², times the number of sites
    beside: Tensor  # what `square` does not cover


@dataclass(frozen=True, kw_only=True, eq=False)
class AffineForm:
    """The margins of a batch of samples as affine forms of the perturbation, ready to be bounded over any ball.

    Attributes:
        expansion: of the nominal trajectories.
        name: of the activation.
        above, below: for each site, (batch, features): G δ ≤ above · ε and ≥ −below · ε in the ball.
        linear: (batch, classes), what the linear part can take from a margin, by ε.
        ratio: ‖δ‖₂ ≤ ratio · ε.
    """

    expansion: Expansion
    name: str
    above: tuple[Tensor, ...]
    below: tuple[Tensor, ...]
    linear: Tensor
    ratio: float

    def loss(self, eps: Tensor) -> Tensor:
        """Return an upper bound of what each margin loses over the ball of radius ε, (batch,): (batch, classes)."""
        deviations: list[_Deviation] = []
        carried: dict[int, _Carried] = {}
        radius = self.ratio * eps
        for number, site in enumerate(self.expansion.sites):
            error = self._arriving(site.sources, deviations, carried, radius)
            if not site.sources:
                error = torch.zeros_like(site.pre)
            up, down = self.above[number] * eps[:, None], self.below[number] * eps[:, None]
            deviations.append(_deviation(self.name, site.pre, site.curvature, up, down, error))
        error = self._arriving(self.expansion.outputs, deviations, carried, radius)
        return (self.linear * eps[:, None] + error) * (1 + SLACK)

    def _arriving(
        self,
        sources: tuple[Arrival, ...],
        deviations: list[_Deviation],
        carried: dict[int, _Carried],
        radius: Tensor,
    ) -> Tensor | float:
        """Return a bound of Σ y_m q_m for every output: of second order in Frobenius norm, and of the rest; or plainly
        of |y_m| |q_m| where that is less."""
        fine: Tensor | float = 0.0
        plain: Tensor | float = 0.0
        for arrival in sources:
            if arrival.group not in carried:
                carried[arrival.group] = self._carry(self.expansion.groups[arrival.group], deviations, radius)
            at = carried[arrival.group]
            y = arrival.absolute
            columns = torch.stack([at.total, at.third, at.beside], 2).float() * (1 + 2.0**-12)
            total, third, beside = (y @ columns).double().unbind(2)
            joint = (y.square() @ (at.square.float() * (1 + 2.0**-12))[:, :, None])[:, :, 0].double().sqrt() + beside
            fine = fine + torch.minimum(third, joint) + arrival.frobenius * (radius.square() / 2)[:, None]
            plain = plain + total
        return torch.minimum(fine, plain) if isinstance(fine, Tensor) and isinstance(plain, Tensor) else 0.0

    def _carry(self, group: Group, deviations: list[_Deviation], radius: Tensor) -> _Carried:
        total: Tensor | float = 0.0
        third: Tensor | float = 0.0
        square: Tensor | float = 0.0
        beside: Tensor | float = 0.0
        for m, reach, weight, rest in zip(group.sites, group.reach, group.weights, group.rest, strict=True):
            found, size = deviations[m], self.expansion.sites[m].size
            factor = found.factor * (abs(weight) * size * radius)[:, None]
            square = square + len(group.sites) * factor.square()
            total, third = total + _times(reach, found.total), third + _times(reach, found.third)
            beside = beside + _times(reach, found.rest)
            if rest is not None:
                beside = beside + _times(rest, found.third)
        return _Carried(total=total, third=third, square=square, beside=beside)  # type: ignore[arg-type]


def _times(matrix: Tensor | None, vector: Tensor) -> Tensor:
    return vector if matrix is None else (matrix @ vector[:, :, None])[:, :, 0]


def _deviation(name: str, pre: Tensor, curvature: Tensor, up: Tensor, down: Tensor, error: Tensor) -> _Deviation:
    """Bound q = ½ c Δ² with Δ = G δ + e, −down ≤ G δ ≤ up, |e| ≤ error, c the mean curvature."""
    linear = torch.maximum(up, down)
    least, most = mean_curvature_range(name, pre, down + error, up + error)
    away = torch.maximum(most - curvature, curvature - least).clamp(min=0)
    bend = torch.maximum(least.abs(), most.abs())
    factor, rest = away / 2 * linear + bend * error, bend / 2 * error.square()
    total = bend / 2 * (linear + error).square()
    return _Deviation(total=total, third=factor * linear + rest, factor=factor, rest=rest)


def affine_form(problem: Problem) -> AffineForm:
    """Return the margins of a problem as affine forms; the model is a dense sNODE with bounded curvature."""
    model = problem.snode
    assert model is not None  # `refuses` has been asked
    x0 = model.encode(problem.x)
    eye = torch.eye(model.flow.bias.shape[1], dtype=x0.dtype, device=x0.device)[: model.classes]
    rows = eye[problem.y][:, None] - eye[None]
    name = model._config.activation
    expansion = expand(model.flow, name, x0, model.encoding_scale, rows)
    low, high = (bound - problem.x.flatten(1) for bound in model.bounds)
    low, high = low.clamp(max=0), high.clamp(min=0)
    return AffineForm(
        expansion=expansion,
        name=name,
        above=tuple(support(site.forms, low, high, problem.norm) for site in expansion.sites),
        below=tuple(support(-site.forms, low, high, problem.norm) for site in expansion.sites),
        linear=support(-expansion.linear, low, high, problem.norm),
        ratio=x0.shape[1] ** 0.5 if problem.norm == "linf" else 1.0,
    )


def search(loss: Callable[[Tensor], Tensor], margins: Tensor, linear: Tensor) -> Tensor:
    """Return for every class the largest radius tried at which the margin outlasts the loss, (batch, classes).

    The first radius is that of the linear part; then a bracket of the largest share loss / margin = 1 is closed, by
    secants in the logarithms and by halvings in turn. What is returned was tried, so that it needs no monotonicity.

    Args:
        loss: maps radii (batch,) to losses (batch, classes).
        margins: (batch, classes), inf in the column of the label; radii of samples with another ≤ 0 are 0.
        linear: (batch, classes), a lower bound of the losses by ε.
    """
    best = torch.zeros_like(margins)
    high = torch.where(linear > 0, margins / linear, torch.inf).amin(1).clamp(min=0, max=FAR)
    low, at_low = torch.zeros_like(high), torch.zeros_like(high)
    at_high, eps = torch.full_like(high, torch.inf), high * (1 - 2 * SLACK)
    for trial in range(TRIALS):
        share = (loss(eps) / margins).nan_to_num(nan=torch.inf)
        share = torch.where(margins > 0, share, torch.inf)
        best = torch.where(share < 1, torch.maximum(best, eps[:, None]), best)
        worst = share.amax(1)
        good = worst < 1
        low, at_low = torch.where(good, eps, low), torch.where(good, worst, at_low)
        high, at_high = torch.where(good, high, eps), torch.where(good, at_high, worst)
        slope = (at_high / at_low).log() / (high / low).log()
        secant = (low.log() - at_low.log() / slope).exp() * (1 - SLACK)
        middle = torch.where(low > 0, (low * high).sqrt(), high / 3)
        fits = secant.isfinite() & (secant > low) & (secant < high)
        eps = torch.where(fits, secant, middle) if trial % 3 != 2 else middle
    return best


def _refuses(problem: Problem) -> str | None:
    model = problem.snode
    if model is None or not isinstance(model.operator, Dense):
        who = type(problem.deployed).__name__
        return f"expects a dense sNODE or its layered twin on a fixed grid, got {who}"
    if not has_curvature(name := model._config.activation):
        return f"needs an activation with bounded curvature, got '{name}'"
    if (need := expansion_bytes(model.flow)) > MEMORY:
        return f"needs {need / 2**30:.1f} GiB for one sample, of {MEMORY / 2**30:.0f} GiB allowed"
    return None


def _radii(problem: Problem) -> ClassRadii:
    model = problem.snode
    assert model is not None
    chunk = max(1, min(8, MEMORY // (4 * expansion_bytes(model.flow))))
    parts = []
    for first in range(0, len(problem.x), chunk):
        part = problem.part(slice(first, first + chunk))
        form = affine_form(part)
        parts.append(search(form.loss, part.margins, form.linear))
    radius = torch.cat(parts)
    return ClassRadii(radius=radius, passes=torch.full_like(radius[:, 0], float(_passes(model))))


def _passes(model: SNODE) -> int:
    flow = model.flow
    return len(flow.bias[0]) * (1 + flow.steps * flow.tableau.stages // 2)


AFFINE = Bound(
    name="affine",
    title="affine form in depth with second order and remainder",
    certifies="discrete",
    norms=("l1", "l2", "linf"),
    source="Makino and Berz, Taylor models, Int. J. Pure Appl. Math. 4 (2003); curvature as in Singla and Feizi, arXiv 2006.00731",
    refuses=_refuses,
    radii=_radii,
)
