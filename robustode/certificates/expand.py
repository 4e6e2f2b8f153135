"""The pass that expands an sNODE around a trajectory near those of samples, block of steps by block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustode.certificates.box import support
from robustode.certificates.deviation import Carried, Deviation, arriving, carry, deviation
from robustode.certificates.expansion import Arrival, Expansion, Group, Site
from robustode.certificates.fit import fit
from robustode.solvers.flow import Flow

BLOCKS = 32  # of steps, at most: their number decides memory and time, their length how tight a bound is
NOISE = 1e-13  # relative, of a sum of squares that may come out as nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Ball:
    """The balls that an expansion is made for: it holds for others too, but is tight for these.

    Attributes:
        eps: radii, (batch,).
        norm: "l1", "l2" or "linf".
        low, high: (batch, inputs), the room of each coordinate, low ≤ 0 ≤ high.
    """

    eps: Tensor
    norm: str
    low: Tensor
    high: Tensor

    @property
    def ratio(self) -> float:
        """‖δ‖₂ ≤ ratio · ‖δ‖."""
        return self.low.shape[1] ** 0.5 if self.norm == "linf" else 1.0

    def support(self, rows: Tensor) -> Tensor:
        """Return `box.support` of rows (batch, rows, inputs)."""
        return support(rows, self.low, self.high, self.norm)


@dataclass(eq=False)
class _Builder:
    """Carries the pass from block to block."""

    flow: Flow
    ball: Ball
    state: Tensor
    jacobian: Tensor
    states: list[Tensor] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    grams: list[Tensor] = field(default_factory=list)
    deviations: list[Deviation] = field(default_factory=list)
    carried: list[Carried] = field(default_factory=list)
    transitions: list[Tensor] = field(default_factory=list)  # ∂x(end)/∂x(start) of each block
    blocks: list[int] = field(default_factory=list)  # the group of each block

    def block(self, steps: range) -> None:
        """Go through the steps of one block and note its sites, its group and its transition."""
        eye = torch.eye(self.state.shape[1], dtype=self.state.dtype, device=self.state.device)
        through = eye.expand(len(self.state), -1, -1)
        arrived: dict[int, Tensor] = {}  # ∂x/∂q_m of the sites of this block
        weights: dict[int, float] = {}
        own: dict[int, int] = {}  # site → group of that site alone
        for n in steps:
            self.states.append(self.state)
            values: list[Tensor] = []
            tangents: list[Tensor] = []
            waves: list[dict[int, Tensor]] = []  # ∂k_j/∂q_m
            for i in range(self.flow.tableau.stages):
                shares = [self.flow.step * a for a in self.flow.tableau.a[i]]
                state, tangent, effect = self._moved(shares, values, tangents, waves, through, arrived)
                weight, bias = self.flow.parameters(n, i)
                rows = weight @ tangent
                effects = {m: weight @ e for m, e in effect.items()}
                number = len(self.sites)
                site = self._site(torch.addmm(bias, state, weight.t()), rows, effects, own)
                own[number] = self._group((number,), (None,), (1.0,), (None,), self._gram(site, site))
                slope = site.fit.slope[:, :, None]
                values.append(self.flow.activation.apply(site.fit.pre) + site.fit.offset)
                tangents.append(slope * rows)
                waves.append({m: slope * e for m, e in effects.items()})
                waves[-1][number] = eye.expand(len(state), -1, -1)
                weights[number] = self.flow.step * self.flow.tableau.b[i]
            shares = [self.flow.step * b for b in self.flow.tableau.b]
            self.state, through, arrived = self._moved(shares, values, tangents, waves, through, arrived)
        self._close(through, arrived, weights)

    def _moved(
        self,
        shares: list[float],
        values: list[Tensor],
        tangents: list[Tensor],
        waves: list[dict[int, Tensor]],
        through: Tensor,
        arrived: dict[int, Tensor],
    ) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """Return state, ∂/∂x(start) and ∂/∂q_m of x + Σ share · value."""
        state, arrived = self.state, dict(arrived)
        for share, value, slope, wave in zip(shares, values, tangents, waves, strict=True):
            if share:
                state, through = state + share * value, through + share * slope
                arrived.update({m: arrived[m] + share * w if m in arrived else share * w for m, w in wave.items()})
        return state, through, arrived

    def _site(self, pre: Tensor, rows: Tensor, effects: dict[int, Tensor], own: dict[int, int]) -> Site:
        """Note a site: its forms, what arrives there, and the fit for both."""
        forms = rows @ self.jacobian
        sources = (*(self.arrive(e, own[m]) for m, e in effects.items()), *self.from_blocks(rows))
        above, below = self.ball.support(forms), self.ball.support(-forms)
        eps, sigma = self.ball.eps[:, None], self.flow.activation
        error = arriving(sources, self.carried, self.ball.ratio * self.ball.eps).expand_as(pre)
        site = Site(
            fit=fit(sigma, pre, torch.maximum(above, below) * eps, error),
            forms=forms,
            above=above,
            below=below,
            size=torch.linalg.matrix_norm(torch.linalg.matrix_power(forms @ forms.mT, 4)) ** 0.125 * (1 + 1e-9),
            sources=sources,
        )
        self.sites.append(site)
        self.deviations.append(deviation(sigma, site, below * eps, above * eps, error))
        return site

    def from_blocks(self, rows: Tensor) -> Iterator[Arrival]:
        """Yield what arrives at outputs, `rows` of the state at the start of the present block, from earlier blocks."""
        for block in reversed(range(len(self.transitions))):
            yield self.arrive(rows, self.blocks[block])
            if block:
                rows = rows @ self.transitions[block]

    def arrive(self, rows: Tensor, group: int) -> Arrival:
        """Return what arrives of a group at outputs, `rows` of where it ends."""
        gram = self.grams[group]
        square = ((rows @ gram) * rows).sum(2)
        spare = NOISE * gram.diagonal(dim1=1, dim2=2).sum(1)[:, None] * rows.square().sum(2)
        upwards = rows.abs().mul_(1 + 2.0**-22).float()
        return Arrival(group=group, absolute=upwards, frobenius=(square.clamp(min=0) + spare).sqrt())

    def _gram(self, first: Site, second: Site) -> Tensor:
        """Return c_i c_j (G_i · G_j)² of two sites."""
        cross = (first.forms @ second.forms.mT).square_()
        return cross.mul_(first.fit.curvature[:, :, None]).mul_(second.fit.curvature[:, None])

    def _group(
        self,
        sites: tuple[int, ...],
        reach: tuple[Tensor | None, ...],
        weights: tuple[float, ...],
        rest: tuple[Tensor | None, ...],
        gram: Tensor,
    ) -> int:
        group = Group(sites=sites, reach=reach, weights=weights, rest=rest)
        self.groups.append(group)
        self.grams.append(gram)
        self.carried.append(carry(group, self.sites, self.deviations, self.ball.ratio * self.ball.eps))
        return len(self.groups) - 1

    def _close(self, through: Tensor, arrived: dict[int, Tensor], weights: dict[int, float]) -> None:
        """Note the group of the block, its gram Σ V_m (c_m c_lᵀ ∘ (G_m G_lᵀ)²) V_lᵀ, and move the Jacobian on."""
        eye = torch.eye(through.shape[1], dtype=through.dtype, device=through.device)
        gram = torch.zeros_like(through)
        for m, at in arrived.items():
            for other, beside in arrived.items():
                if other <= m:
                    part = at @ self._gram(self.sites[m], self.sites[other]) @ beside.mT
                    gram = gram + (part if other == m else part + part.mT)
        numbers = tuple(arrived)
        reach = tuple(at.abs() for at in arrived.values())
        rest = tuple((at - weights[m] * eye).abs() for m, at in arrived.items())
        self.blocks.append(self._group(numbers, reach, tuple(weights[m] for m in numbers), rest, gram))
        self.transitions.append(through)
        self.jacobian = through @ self.jacobian


def expand(flow: Flow, ball: Ball, start: Tensor, scale: float, outputs: Tensor) -> Expansion:
    """Return an expansion of a dense flow around trajectories from `start`.

    Each value is replaced by its fit on the range that it has over the ball. With Δ = the change of a pre-activation
    from the reference trajectory, σ(a + Δ) = σ(a) + offset + slope Δ + q, and all else is linear:
    Δ_s = G_s δ + Σ y_{s,m} q_m exactly, over the sites m before s, and the outputs likewise. The sum is grouped: sites
    of the block under way one by one, those of earlier blocks as they arrive at the block's end.

    Args:
        flow: dense, on a fixed grid, float64, its activation with bounded curvature.
        ball: what the fits are for.
        start: x(0), (batch, features).
        scale: ∂x(0)/∂input, a number.
        outputs: (batch, k, features), the rows of the final state that are asked for.
    """
    batch, features = start.shape
    eye = scale * torch.eye(features, dtype=start.dtype, device=start.device)
    builder = _Builder(flow=flow, ball=ball, state=start, jacobian=eye.expand(batch, -1, -1))
    length = block_length(flow)
    for first in range(0, flow.steps, length):
        builder.block(range(first, min(first + length, flow.steps)))
    return Expansion(
        sites=tuple(builder.sites),
        groups=tuple(builder.groups),
        states=(*builder.states, builder.state),
        values=(outputs @ builder.state[:, :, None])[:, :, 0],
        linear=outputs @ builder.jacobian,
        outputs=tuple(builder.from_blocks(outputs)),
    )


def block_length(flow: Flow) -> int:
    """Return the steps of one block."""
    return math.ceil(flow.steps / BLOCKS)


def blocks(flow: Flow) -> int:
    """Return the number of blocks."""
    return math.ceil(flow.steps / block_length(flow))


def expansion_bytes(flow: Flow) -> int:
    """Return the memory of the expansion of one sample, nearly: |y| of every pair of a site and an earlier block, or
    a site of its own block, in float32; forms and grams of every site in float64."""
    features, stages = flow.weight.shape[1], flow.tableau.stages
    sites = flow.steps * stages
    pairs = sites * (blocks(flow) + block_length(flow) * stages) // 2
    return features**2 * (4 * pairs + 8 * 5 * sites)
