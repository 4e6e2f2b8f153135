"""An sNODE around its nominal trajectory: every activation as a source of curvature, and where its effect arrives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustode.certificates.slopes import curvature_range
from robustode.solvers.flow import Flow

BLOCKS = 16  # of steps, at most: their number decides memory and time, their length how tight a bound is
NOISE = 1e-13  # relative, of a sum of squares that may come out as nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """One evaluation of σ, in a step and stage of the nominal pass; q is what its value deviates from linear by.

    Attributes:
        pre: a, (batch, features).
        slope, curvature: σ'(a), σ''(a).
        forms: G = ∂a/∂input, (batch, features, inputs).
        size: upper bound of ‖G‖₂, (batch,).
        gram: c_i c_j (G_i·G_j)² with c = σ'', (batch, features, features): yᵀ gram y = ‖Σ y_i c_i G_i G_iᵀ‖²_F.
        sources: what arrives at a, of the curvature of earlier sites.
    """

    pre: Tensor
    slope: Tensor
    curvature: Tensor
    forms: Tensor
    size: Tensor
    gram: Tensor
    sources: tuple[Arrival, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrival:
    """How the deviations of one group of sites arrive at some outputs: y_r · Σ_m V_m q_m for each output r.

    Attributes:
        group: number of the group, see `Group`.
        absolute: |y|, (batch, outputs, features) float32, rounded up.
        frobenius: (batch, outputs), ‖Σ_m Σ_i (y V_m)_i σ''_i G_i G_iᵀ‖_F: the second-order part is at most half of it
            times ‖δ‖₂².
    """

    group: int
    absolute: Tensor
    frobenius: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Sites whose deviations are taken together: one site, or all of a block of steps as they arrive at its end.

    Attributes:
        sites: their numbers.
        reach: |V_m| for each, (batch, features, features); None for the identity.
        weights: v_m, near which V_m is v_m I.
        rest: |V_m − v_m I|, None for nothing.
    """

    sites: tuple[int, ...]
    reach: tuple[Tensor | None, ...]
    weights: tuple[float, ...]
    rest: tuple[Tensor | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Expansion:
    """A batch of nominal trajectories with all that a bound of second order needs of them, apart from ε.

    Attributes:
        sites: in the order of evaluation.
        groups: that `Arrival.group` numbers.
        jacobian: P = ∂x(T)/∂input, (batch, features, inputs).
        outputs: how the groups arrive at the logits' differences, see `expand`.
        linear: (batch, outputs, inputs), their gradients.
    """

    sites: tuple[Site, ...]
    groups: tuple[Group, ...]
    linear: Tensor
    outputs: tuple[Arrival, ...]


@dataclass(eq=False)
class _Builder:
    """Carries the pass from block to block."""

    flow: Flow
    name: str
    state: Tensor
    jacobian: Tensor
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
        linear=outputs @ builder.jacobian,
        outputs=tuple(builder.from_blocks(outputs)),
    )


def block_length(flow: Flow) -> int:
    """Return the steps of one block."""
    return math.ceil(flow.steps / BLOCKS)


def expansion_bytes(flow: Flow) -> int:
    """Return the memory of the expansion of one sample, nearly."""
    features, stages, length = flow.weight.shape[1], flow.tableau.stages, block_length(flow)
    sites, blocks = flow.steps * stages, math.ceil(flow.steps / length)
    pairs = sites * blocks // 2 + sites * length * stages // 2
    return features**2 * (4 * pairs + 8 * (3 * sites + 2 * sites))
