"""The pass that expands an sNODE around the trajectories of samples, block of steps by block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustode.certificates.expansion import Arrival, Expansion, Group, Site
from robustode.certificates.slopes import curvature_range
from robustode.solvers.flow import Flow

BLOCKS = 16  # of steps, at most: their number decides memory and time, their length how tight a bound is
NOISE = 1e-13  # relative, of a sum of squares that may come out as nothing


@dataclass(eq=False)
class _Builder:
    """Carries the pass from block to block."""

    flow: Flow
    name: str
    state: Tensor
    jacobian: Tensor
    states: list[Tensor] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    grams: list[Tensor] = field(default_factory=list)
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
                state, tangent, effect = self._stage(i, values, tangents, waves, through, arrived)
                weight, bias = self.flow.parameters(n, i)
                rows = weight @ tangent
                effects = {m: weight @ e for m, e in effect.items()}
                site = self._site(torch.addmm(bias, state, weight.t()), rows, effects, own)
                number = len(self.sites)
                own[number] = self._single(number, site)
                self.sites.append(site)
                values.append(self.flow.activation.apply(site.pre))
                tangents.append(site.slope[:, :, None] * rows)
                waves.append({m: site.slope[:, :, None] * e for m, e in effects.items()})
                waves[-1][number] = eye.expand(len(state), -1, -1)
                weights[number] = self.flow.step * self.flow.tableau.b[i]
            self.state, through, arrived = self._step(values, tangents, waves, through, arrived)
        self._close(through, arrived, weights)

    def _stage(self, i, values, tangents, waves, through, arrived):
        state, tangent, effect = self.state, through, dict(arrived)
        for a, value, slope, wave in zip(self.flow.tableau.a[i], values, tangents, waves, strict=True):
            if a:
                share = self.flow.step * a
                state, tangent = state + share * value, tangent + share * slope
                effect.update({m: effect[m] + share * w if m in effect else share * w for m, w in wave.items()})
        return state, tangent, effect

    def _step(self, values, tangents, waves, through, arrived):
        state, arrived = self.state, dict(arrived)
        for b, value, slope, wave in zip(self.flow.tableau.b, values, tangents, waves, strict=True):
            share = self.flow.step * b
            state, through = state + share * value, through + share * slope
            arrived.update({m: arrived[m] + share * w if m in arrived else share * w for m, w in wave.items()})
        return state, through, arrived

    def _site(self, pre: Tensor, rows: Tensor, effects: dict[int, Tensor], own: dict[int, int]) -> Site:
        low, high = curvature_range(self.name, pre, pre)
        curvature = (low + high) / 2
        forms = rows @ self.jacobian
        products = forms @ forms.mT
        fourth = torch.linalg.matrix_power(products, 4)
        bent = curvature[:, :, None] * products
        near = [self.arrive(e, own[m]) for m, e in effects.items()]
        return Site(
            pre=pre,
            slope=self.flow.activation.slope(self.flow.activation.apply(pre)),
            curvature=curvature,
            forms=forms,
            size=torch.linalg.matrix_norm(fourth) ** 0.125 * (1 + 1e-9),
            gram=bent * products * curvature[:, None],
            sources=(*near, *self.from_blocks(rows)),
        )

    def from_blocks(self, rows: Tensor) -> Iterator[Arrival]:
        """Yield what arrives at outputs, `rows` of the state at the start of the present block, from earlier blocks."""
        for block in reversed(range(len(self.transitions))):
            yield self.arrive(rows, self.blocks[block])
            if block:
                rows = rows @ self.transitions[block]

    def arrive(self, rows: Tensor, group: int) -> Arrival:
        gram = self.grams[group]
        square = ((rows @ gram) * rows).sum(2)
        spare = NOISE * gram.diagonal(dim1=1, dim2=2).sum(1)[:, None] * rows.square().sum(2)
        upwards = rows.abs().mul_(1 + 2.0**-22).float()
        return Arrival(group=group, absolute=upwards, frobenius=(square.clamp(min=0) + spare).sqrt())

    def _single(self, number: int, site: Site) -> int:
        self.groups.append(Group(sites=(number,), reach=(None,), weights=(1.0,), rest=(None,)))
        self.grams.append(site.gram)
        return len(self.groups) - 1

    def _close(self, through: Tensor, arrived: dict[int, Tensor], weights: dict[int, float]) -> None:
        """Note the group of the block, its gram Σ V_m (σ''_m σ''_lᵀ ∘ (G_m G_lᵀ)²) V_lᵀ, and move the Jacobian on."""
        eye = torch.eye(through.shape[1], dtype=through.dtype, device=through.device)
        gram = torch.zeros_like(through)
        for m, at in arrived.items():
            for other, beside in arrived.items():
                if other > m:
                    continue
                first, second = self.sites[m], self.sites[other]
                cross = (first.forms @ second.forms.mT).square()
                cross = first.curvature[:, :, None] * cross * second.curvature[:, None]
                part = at @ cross @ beside.mT
                gram = gram + (part if other == m else part + part.mT)
        numbers = tuple(arrived)
        self.groups.append(
            Group(
                sites=numbers,
                reach=tuple(at.abs() for at in arrived.values()),
                weights=tuple(weights[m] for m in numbers),
                rest=tuple((at - weights[m] * eye).abs() for m, at in arrived.items()),
            )
        )
        self.grams.append(gram)
        self.blocks.append(len(self.groups) - 1)
        self.transitions.append(through)
        self.jacobian = through @ self.jacobian


def expand(flow: Flow, name: str, start: Tensor, scale: float, outputs: Tensor) -> Expansion:
    """Return the expansion of a dense flow around the trajectories from `start`.

    With Δ = the change of a pre-activation under an input perturbation δ, σ(a + Δ) = σ(a) + σ'(a) Δ + q, and all else
    is linear: Δ_s = G_s δ + Σ y_{s,m} q_m exactly, over the sites m before s, and the outputs likewise. The sum is
    grouped: sites of the block under way one by one, those of earlier blocks as they arrive at the block's end.

    Args:
        flow: dense, on a fixed grid, float64.
        name: of its activation, with bounded curvature.
        start: x(0), (batch, features).
        scale: ∂x(0)/∂input, a number.
        outputs: (batch, k, features), the rows of the final state that are asked for.
    """
    batch, features = start.shape
    eye = scale * torch.eye(features, dtype=start.dtype, device=start.device)
    builder = _Builder(flow=flow, name=name, state=start, jacobian=eye.expand(batch, -1, -1))
    length = block_length(flow)
    for first in range(0, flow.steps, length):
        builder.block(range(first, min(first + length, flow.steps)))
    return Expansion(
        sites=tuple(builder.sites),
        groups=tuple(builder.groups),
        states=(*builder.states, builder.state),
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
