"""A path that follows the exact flow from a sample, and how far it is from solving the ODE: the defect, bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from robustode.certificates.linear import UNIT, Linear
from robustode.certificates.slopes import curvature_range, has_curvature, slope_range
from robustode.models.snode import SNODE
from robustode.solvers.activations import activation

PIECES = 1024  # at least, of the path
WINDOWS = 48  # at least, of the path: within one, all slopes of the pre-activations that occur are allowed
Position = tuple[int, float]  # a knot and the share of the next one in θ


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """A stretch of depth within which θ is linear, and all that a tube around the path needs of it.

    Attributes:
        length: in depth.
        ends: (knot, share of the next) of θ at both ends.
        low, high: pre-activations of the path lie between, (batch, *state).
        defect: ∫ |v' − σ(W v + b)| over it, componentwise, and what rounding adds, (batch, *state).
    """

    length: float
    ends: tuple[Position, Position]
    low: Tensor
    high: Tensor
    defect: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Enclosure:
    """The windows of a path, in depth, and its end v(T), (batch, *state)."""

    windows: tuple[Window, ...]
    final: Tensor


def weights_at(model: SNODE, position: Position) -> tuple[Linear, Tensor]:
    """Return (K, b) at a share w of the way from knot k to the next."""
    k, w = position
    weight, bias = model.weight.detach(), model.bias.detach()
    if w:
        weight, bias = (torch.lerp(v[k], v[k + 1], w) for v in (weight, bias))
    else:
        weight, bias = weight[k], bias[k]
    return Linear(operator=model.operator, weight=weight), model.operator.spread(bias)


def stretches(model: SNODE) -> Iterator[tuple[float, tuple[Position, Position]]]:
    """Yield (length, ends) of windows that cover [0, T], broken at the knots."""
    knots = len(model.bias)
    inner = math.ceil(WINDOWS / knots)
    outer = math.ceil(inner / 2)
    span = model.horizon / knots
    yield from [(span / 2 / outer, ((0, 0.0), (0, 0.0)))] * outer
    for k in range(knots - 1):
        places = [(k, j / inner) for j in range(inner)] + [(k + 1, 0.0)]
        yield from ((span / inner, ends) for ends in pairwise(places))
    last = (knots - 1, 0.0)
    yield from [(span / 2 / outer, (last, last))] * outer


def enclose(model: SNODE, x: Tensor) -> Enclosure:
    """Return a path from x(0) = encode(x) with bounds of its defect.

    v' is linear in each piece between slopes g ≈ σ(W v + b), so that a = W v + b has a linear second derivative there,
    and σ(a(t)) is within h²/8 sup |σ'' a'² + σ' a''| of the chord that v' follows; where σ'' is not bounded and the
    slope not constant, σ being monotone, within σ(max a) − σ(min a).

    Args:
        model: in float64; its solver does not matter.
        x: (batch, *input_shape) float64.
    """
    plan = list(stretches(model))
    pieces = math.ceil(PIECES / len(plan))
    walk = _Walk(model, model.encode(x))
    return Enclosure(windows=tuple(walk.window(*part, pieces) for part in plan), final=walk.state)


class _Walk:
    """The path while it is made: state v, slope g, and the weights at the present depth."""

    def __init__(self, model: SNODE, state: Tensor) -> None:
        self._model, self.state = model, state
        self._sigma = activation(model.config["activation"])
        self._part, self._bias = weights_at(model, (0, 0.0))
        self._pre = self._affine(state)
        self._slope = self._sigma.apply(self._pre.clone())
        self._most = Linear(operator=model.operator, weight=model.weight.detach().abs().amax(0))
        self._most_bias = model.operator.spread(model.bias.detach().abs().amax(0))
        self._miss = self._noise(self._sizes(state.abs()) + self._most_bias)

    def _affine(self, z: Tensor) -> Tensor:
        return self._product(z) + self._bias

    def _product(self, z: Tensor) -> Tensor:
        return self._part.operator.product(z, self._part.weight)

    def _sizes(self, size: Tensor) -> Tensor:
        return self._most.rows(size) + self._most.diagonal.abs() * size

    def _noise(self, size: Tensor) -> Tensor:
        """Return what rounding may do to products with weights of any depth whose terms add up to `size`."""
        return 64 * (self._most.terms + 16) * UNIT * (size + 1)

    def window(self, length: float, ends: tuple[Position, Position], pieces: int) -> Window:
        """Advance through one window; return it."""
        (k, first), (_, last) = ends[0], ends[1] if ends[1][0] == ends[0][0] else (ends[0][0], 1.0)
        low = high = self._pre
        defect = torch.zeros_like(self.state)
        for j in range(1, pieces + 1):
            share = first + (last - first) * j / pieces
            position = ends[1] if j == pieces else (k, share)
            least, most, off = self._piece(length / pieces, position)
            low, high, defect = torch.minimum(low, least), torch.maximum(high, most), defect + off
        return Window(length=length, ends=ends, low=low, high=high, defect=defect)

    def _piece(self, h: float, position: Position) -> tuple[Tensor, Tensor, Tensor]:
        """Advance by h; return (min a, max a, h times the largest defect and what rounding adds), componentwise."""
        v, g, pre, miss = self.state, self._slope, self._pre, self._miss
        old = self._part, self._bias
        self._part, self._bias = weights_at(self._model, position)
        slope = g
        for _ in range(3):
            state = v + (h / 2) * (g + slope)
            next_pre = self._affine(state)
            slope, last = self._sigma.apply(next_pre.clone()), slope
        self.state, self._slope, self._pre = state, last, next_pre
        moving = g.abs() + last.abs()
        noise = self._noise(self._sizes(v.abs() + state.abs() + h * moving) + self._most_bias + moving)
        self._miss = (slope - last).abs() + noise
        bend = (last - g) / h
        first, second = self._derivatives(old, v, g, state, bend, h)
        rise = second + noise / h
        speed = first + noise / h + h / 2 * rise
        low = torch.minimum(pre, next_pre) - h * h / 8 * rise - noise
        high = torch.maximum(pre, next_pre) + h * h / 8 * rise + noise
        off = torch.maximum(miss, self._miss) + self._chord(low, high, speed, rise, h)
        return low, high, h * off * (1 + 2.0**-40) + 8 * UNIT * (v.abs() + state.abs() + h * moving)

    def _derivatives(self, old, v: Tensor, g: Tensor, state: Tensor, bend: Tensor, h: float) -> tuple[Tensor, Tensor]:
        """Return the larger at the two ends of |a'| and of |a''|, componentwise."""
        part, bias = old
        new, end = self._part, self._slope

        def turned(z: Tensor) -> Tensor:  # W' z
            return (new.operator.product(z, new.weight) - part.operator.product(z, part.weight)) / h

        drift = (self._bias - bias) / h
        first = [turned(v) + part.operator.product(g, part.weight) + drift]
        first.append(turned(state) + self._product(end) + drift)
        second = [2 * turned(g) + part.operator.product(bend, part.weight)]
        second.append(2 * turned(end) + self._product(bend))
        return torch.maximum(first[0].abs(), first[1].abs()), torch.maximum(second[0].abs(), second[1].abs())

    def _chord(self, low: Tensor, high: Tensor, speed: Tensor, rise: Tensor, h: float) -> Tensor:
        """Return how far σ(a(t)) can be from the chord through its ends in a piece, componentwise."""
        name = self._sigma.name
        least, most = slope_range(name, low, high)
        steep = h * h / 8 * torch.maximum(least.abs(), most.abs()) * rise
        if has_curvature(name):
            down, up = curvature_range(name, low, high)
            return steep + h * h / 8 * torch.maximum(down.abs(), up.abs()) * speed.square()
        span = self._sigma.apply(high.clone()) - self._sigma.apply(low.clone())
        span = span + 64 * UNIT * (low.abs() + high.abs() + 1)
        return torch.where(most - least < 1e-14, steep + 1e-14 * speed * h, span)
