"""Tangents and cotangents along given slopes, as bounds need them: what moves, and what each change costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.box import support
from robustode.certificates.network import network
from robustode.certificates.problem import Problem
from robustode.sensitivity.norms import dual
from robustode.solvers.flow import Flow

Slopes = Sequence[Sequence[Tensor]]  # σ' of every step and stage, (batch, *state)
UP = 1 + 2.0**-40


@dataclass(frozen=True, kw_only=True, eq=False)
class Reach:
    """How far something moves to first order, G δ, in a ball of radius ε, by ε; (batch, *state) each.

    Attributes:
        above, below: G δ ≤ above · ε and ≥ −below · ε for valid inputs.
        wide: |G δ| ≤ wide · ε whatever the box.
    """

    above: Tensor
    below: Tensor
    wide: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Pull:
    """What a step does to the cotangents of the margins.

    Attributes:
        after, before: λ at its end and beginning, (batch, classes, *state).
        values: μ of each stage, likewise: h μ · q is what the margins gain where its value gains q.
        size: at least the sum of the terms that make λ at its beginning, for any class, (batch, *state).
        sizes: the same for each μ.
    """

    after: Tensor
    before: Tensor
    values: tuple[Tensor, ...]
    size: Tensor
    sizes: tuple[Tensor, ...]


def reaches(problem: Problem, flow: Flow, slopes: Slopes) -> Iterator[tuple[Reach, tuple[Reach, ...]]]:
    """Yield how far the state before each step and the pre-activations of its stages move; last x(T), with no stages.

    One tangent for every component of the input.
    """
    model, size = network(problem), problem.x[0].numel()
    eye = torch.eye(size, dtype=torch.float64, device=problem.x.device).reshape(size, *problem.x.shape[1:])
    tangent = (model.lift(eye) * model.encoding_scale).expand(len(problem.x), *(-1,) * (flow.operator.dims + 1))
    for n in range(flow.steps):
        values: list[Tensor] = []
        found: list[Reach] = []
        for i in range(flow.tableau.stages):
            z = _combined(tangent, flow.tableau.a[i], values, flow.step)
            rows = z.reshape(-1, *z.shape[2:])
            moving = flow.operator.product(rows, flow.parameters(n, i)[0]).reshape(z.shape)
            found.append(_reach(problem, moving))
            values.append(moving * slopes[n][i][:, None])
        yield _reach(problem, tangent), tuple(found)
        tangent = _combined(tangent, flow.tableau.b, values, flow.step)
    yield _reach(problem, tangent), ()


def pulls(flow: Flow, slopes: Slopes, cotangent: Tensor) -> Iterator[Pull]:
    """Yield what each step, from the last to the first, does to cotangents λ(T), (batch, classes, *state).

    λ ← λ + h Σ_i ν_i with ν_i = K_iᵀ (σ'_i ⊙ μ_i) and μ_i = b_i λ + h Σ_{j>i} a_ji ν_j.
    """
    h, tableau = flow.step, flow.tableau
    for n in reversed(range(flow.steps)):
        after, pulled = cotangent, {}
        values: dict[int, Tensor] = {}
        sizes: dict[int, Tensor] = {}
        for i in reversed(range(tableau.stages)):
            later = list(pulled)
            shares = [h * tableau.a[j][i] for j in later]
            values[i] = _combined(after * tableau.b[i], shares, [pulled[j] for j in later], 1.0)
            sizes[i] = _size(after * tableau.b[i], shares, [pulled[j] for j in later])
            rows = values[i] * slopes[n][i][:, None]
            weight = flow.parameters(n, i)[0]
            pulled[i] = flow.operator.transposed(rows.reshape(-1, *rows.shape[2:]), weight).reshape(rows.shape)
        changes = [pulled[i] for i in range(tableau.stages)]
        cotangent = _combined(after, [1.0] * len(changes), changes, h)
        order = range(tableau.stages)
        yield Pull(
            after=after,
            before=cotangent,
            values=tuple(values[i] for i in order),
            size=_size(after, [h] * len(changes), changes),
            sizes=tuple(sizes[i] for i in order),
        )


def room(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return how far each component of the inputs may fall and rise within the bounds, (batch, d) each."""
    (lo, hi), x = problem.exact.bounds, problem.x.flatten(1)
    return (lo - x).clamp(max=0), (hi - x).clamp(min=0)


def _reach(problem: Problem, tangent: Tensor) -> Reach:
    """Return the reach of the directions whose components are tangents, (batch, d, *state)."""
    rows, (low, high) = tangent.flatten(2).mT.contiguous(), room(problem)
    found = (support(rows, low, high, problem.norm), support(-rows, low, high, problem.norm), dual(rows, problem.norm))
    above, below, wide = (size.reshape(-1, *tangent.shape[2:]) * UP for size in found)
    return Reach(above=above, below=below, wide=wide)


def _combined(x: Tensor, shares: Sequence[float], values: Sequence[Tensor], h: float) -> Tensor:
    for share, value in zip(shares, values, strict=True):
        if share:
            x = torch.add(x, value, alpha=h * share)
    return x


def _size(x: Tensor, shares: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """Return the sum of the sizes of the terms of a combination, the most over the classes."""
    total = x.abs()
    for share, value in zip(shares, values, strict=True):
        total = total + abs(share) * value.abs()
    return total.amax(1)
