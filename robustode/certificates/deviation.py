"""How far the value of an activation deviates from its fit over a ball, and how that arrives further on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustode.certificates.expansion import Arrival, Group, Site
from robustode.certificates.fit import left
from robustode.solvers.activations import Activation

UP = 1 + 2.0**-12  # for sums in float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Deviation:
    """Bounds of the deviation q = ½ c (G δ)² + τ ∘ (G δ) + u of a value from its line, (batch, features) each.

    Attributes:
        third: of |τ ∘ (G δ) + u|.
        factor: of |τ|.
        rest: of |u|.
        moved: of the distance of the value from that on the reference trajectory.
    """

    third: Tensor
    factor: Tensor
    rest: Tensor
    moved: Tensor

    def with_error(self, error: Tensor) -> Deviation:
        """Return the deviation with that of something else, bounded by `error`, added to it."""
        return replace(self, third=self.third + error, rest=self.rest + error)


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """The deviations of a group as they arrive at its end, without their second order, (batch, features) each.

    Attributes:
        third: plainly, Σ |V_m| |τ_m ∘ (G_m δ) + u_m|.
        square: Σ (v_m ‖G_m‖ r |τ_m|)², times the number of sites: |y · Σ v_m τ_m ∘ (G_m δ)|² ≤ y² · square.
        beside: what `square` does not cover.
    """

    third: Tensor
    square: Tensor
    beside: Tensor


def deviation(sigma: Activation, site: Site, down: Tensor, up: Tensor, error: Tensor) -> Deviation:
    """Return the bounds for Δ = G δ + e, −down ≤ G δ ≤ up, |e| ≤ error.

    With t = what the fit leaves, q = ½ c (G δ)² + c (G δ) e + ½ c e² + t − offset.
    """
    forms, fitted = torch.maximum(up, down), site.fit
    found = left(sigma, fitted, down + error, up + error)
    away = torch.maximum(found.high - fitted.offset, fitted.offset - found.low)
    c = fitted.curvature.abs()
    crossed = c * (forms + error / 2) * error
    parabola = fitted.curvature != 0
    return Deviation(
        third=away + crossed,
        factor=torch.where(parabola, c * error + found.rate, 0.0),
        rest=torch.where(parabola, (c * error / 2 + found.rate) * error, away),
        moved=fitted.slope.abs() * (forms + error) + c / 2 * (forms + error).square() + away,
    )


def carry(group: Group, sites: Sequence[Site], deviations: Sequence[Deviation], radius: Tensor) -> Carried:
    """Return the deviations of the sites of a group as they arrive at its end, for ‖δ‖₂ ≤ radius, (batch,)."""
    third = square = beside = torch.zeros_like(deviations[group.sites[0]].third)
    for m, reach, weight, rest in zip(group.sites, group.reach, group.weights, group.rest, strict=True):
        found = deviations[m]
        factor = found.factor * (abs(weight) * sites[m].size * radius)[:, None]
        square = square + len(group.sites) * factor.square()
        third = third + _times(reach, found.third)
        beside = beside + _times(reach, found.rest)
        if rest is not None:
            beside = beside + _times(rest, found.third)
    return Carried(third=third, square=square, beside=beside)


def arriving(sources: Sequence[Arrival], carried: Sequence[Carried], radius: Tensor) -> Tensor:
    """Return a bound of Σ y_m q_m for every output: second order in Frobenius norm, and the rest, plainly or with its
    part in G δ jointly; (batch, outputs), zeros of (batch, 1) without sources."""
    total = torch.zeros_like(radius)[:, None]
    for arrival in sources:
        at, y = carried[arrival.group], arrival.absolute
        columns = torch.stack([at.third, at.beside], 2).float() * UP
        third, beside = (y @ columns).double().unbind(2)
        joint = (y.square() @ (at.square.float() * UP)[:, :, None])[:, :, 0].double().sqrt() + beside
        total = total + torch.minimum(third, joint) + arrival.frobenius * (radius.square() / 2)[:, None]
    return total


def _times(matrix: Tensor | None, vector: Tensor) -> Tensor:
    return vector if matrix is None else (matrix @ vector[:, :, None])[:, :, 0]
