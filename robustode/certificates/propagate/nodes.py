"""The kinds of nodes that a network is made of: each knows its value, its interval and its linear bounds."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustode.certificates.propagate.curves import Curve
from robustode.certificates.propagate.linear import Linear
from robustode.certificates.propagate.relax import Lines, lines, value_range
from robustode.certificates.propagate.roundoff import Roundoff


@dataclass(frozen=True, kw_only=True, eq=False)
class Range:
    """What is known of a node over the input set, of every map whose nodes are off by their roundings.

    Attributes:
        low, high: (batch, *shape).
        error: allowance for the rounding of the node itself, broadcasts against them.
        enclosing: lines around an activation, as functions of its source.
    """

    low: Tensor
    high: Tensor
    error: Tensor
    enclosing: Lines | None = None

    def intersected(self, low: Tensor, high: Tensor) -> Range:
        """Return what is left of the interval inside another that holds, too; NaN where either is."""
        return replace(self, low=torch.maximum(self.low, low), high=torch.minimum(self.high, high))

    @property
    def size(self) -> Tensor:
        """Largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One tensor of the network; the input, if it has no sources.

    Attributes:
        sources: numbers of the nodes that it is made of.
        shape: of one sample's value.
    """

    sources: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in one sample's value."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Made(Node, ABC):
    """A node that is made of others."""

    @abstractmethod
    def value(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the value (batch, *shape) from those of the sources."""

    @abstractmethod
    def enclose(self, inputs: Sequence[Range], roundoff: Roundoff) -> Range:
        """Return the range from those of the sources, by interval arithmetic."""

    @abstractmethod
    def pull(self, rows: Tensor, own: Range) -> tuple[Tensor, list[Tensor]]:
        """Return (c, [A_s]) with ⟨A, value⟩ ≥ c + Σ_s ⟨A_s, source s⟩ over the range.

        `rows` is A, (batch or 1, rows, *shape); c is (batch or 1, rows).
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Flat(Made):
    """A node that is affine in its sources."""

    @abstractmethod
    def spread(self, errors: Sequence[Tensor]) -> Tensor:
        """Return how far errors of the sources move the value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine(Flat):
    """K x + b.

    Attributes:
        linear: K.
        bias: b, broadcasts against one state; None for 0.
        bias_size: size of what b is computed from, where that is larger than |b|.
    """

    linear: Linear
    bias: Tensor | None = None
    bias_size: Tensor | None = None

    def value(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return K x + b."""
        out = self.linear.apply(inputs[0])
        return out if self.bias is None else out + self.bias

    def enclose(self, inputs: Sequence[Range], roundoff: Roundoff) -> Range:
        """Return K c + b ± (|K| r + allowance) for the centre c and radius r of the source's interval."""
        (source,) = inputs
        size = self.linear.absolute(source.size)
        if self.bias is not None:
            size = size + (self.bias.abs() if self.bias_size is None else self.bias_size)
        error = roundoff.of_sum(self.linear.terms, size)
        if self.linear.nonnegative:
            low, high = self.value([source.low]), self.value([source.high])
        else:
            centre, radius = (source.low + source.high) / 2, (source.high - source.low) / 2
            middle, spread = self.value([centre]), self.linear.absolute(radius)
            low, high = middle - spread, middle + spread
        return Range(low=low - error, high=high + error, error=error)

    def spread(self, errors: Sequence[Tensor]) -> Tensor:
        """Return |K| e."""
        return self.linear.absolute(errors[0])

    def pull(self, rows: Tensor, own: Range) -> tuple[Tensor, list[Tensor]]:
        """Return ⟨A, b⟩ − ⟨|A|, allowance⟩ and Kᵀ A."""
        constant = -dot(rows.abs(), own.error)
        if self.bias is not None:
            constant = constant + dot(rows, self.bias.expand(self.shape).unsqueeze(0))
        return constant, [self.linear.transposed(rows)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Combine(Flat):
    """Σ_s c_s x_s, with a number for each source."""

    coefficients: tuple[float, ...]

    def value(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the sum."""
        return sum(c * x for c, x in zip(self.coefficients, inputs, strict=True))  # type: ignore[return-value]

    def enclose(self, inputs: Sequence[Range], roundoff: Roundoff) -> Range:
        """Return the sum of the intervals."""
        pairs = list(zip(self.coefficients, inputs, strict=True))
        error = roundoff.of_sum(len(pairs), self._sum([abs(c) * x.size for c, x in pairs]))
        low = self._sum([c * (x.low if c > 0 else x.high) for c, x in pairs])
        high = self._sum([c * (x.high if c > 0 else x.low) for c, x in pairs])
        return Range(low=low - error, high=high + error, error=error)

    def spread(self, errors: Sequence[Tensor]) -> Tensor:
        """Return Σ |c_s| e_s."""
        return self._sum([abs(c) * e for c, e in zip(self.coefficients, errors, strict=True)])

    def pull(self, rows: Tensor, own: Range) -> tuple[Tensor, list[Tensor]]:
        """Return −⟨|A|, allowance⟩ and c_s A."""
        return -dot(rows.abs(), own.error), [rows if c == 1 else c * rows for c in self.coefficients]

    @staticmethod
    def _sum(parts: list[Tensor]) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Activate(Made):
    """σ, elementwise."""

    curve: Curve

    def value(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return σ(a)."""
        return self.curve.value(inputs[0])

    def enclose(self, inputs: Sequence[Range], roundoff: Roundoff) -> Range:
        """Return the range of σ, wider by the allowances."""
        low, high = value_range(self.curve, inputs[0].low, inputs[0].high)
        size = torch.maximum(low.abs(), high.abs())
        error = roundoff.of_value(size) + self.curve.deviation + roundoff.of_own * size
        return Range(low=low - error, high=high + error, error=error)

    def surround(self, own: Range, source: Range, roundoff: Roundoff) -> Range:
        """Return the range with lines around σ over the source's interval, apart by the allowances, too."""
        around = lines(self.curve, source.low, source.high)
        slope = torch.maximum(around.lower_slope.abs(), around.upper_slope.abs())
        size = torch.maximum(around.lower.abs(), around.upper.abs()) + slope * source.size
        slack = own.error + roundoff.of_own * size
        return replace(own, enclosing=replace(around, lower=around.lower - slack, upper=around.upper + slack))

    def pull(self, rows: Tensor, own: Range) -> tuple[Tensor, list[Tensor]]:
        """Return ⟨A⁺, β⟩ + ⟨A⁻, β'⟩ and A⁺ ⊙ α + A⁻ ⊙ α', with the lines that enclose σ."""
        assert own.enclosing is not None
        line, positive = own.enclosing, rows.clamp(min=0)
        constant = dot(rows, line.upper) + dot(positive, line.lower - line.upper)
        pulled = rows * line.upper_slope.unsqueeze(1)
        return constant, [pulled.addcmul_(positive, (line.lower_slope - line.upper_slope).unsqueeze(1))]


@dataclass(frozen=True, kw_only=True, eq=False)
class Largest(Made):
    """Max pooling, or another map that is nondecreasing in every input and exact: bounded by intervals only."""

    apply: Callable[[Tensor], Tensor]

    def value(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the pooled state."""
        return self.apply(inputs[0])

    def enclose(self, inputs: Sequence[Range], roundoff: Roundoff) -> Range:
        """Return the pooled ends."""
        low, high = self.apply(inputs[0].low), self.apply(inputs[0].high)
        error = roundoff.of_own * torch.maximum(low.abs(), high.abs())
        return Range(low=low - error, high=high + error, error=error)

    def pull(self, rows: Tensor, own: Range) -> tuple[Tensor, list[Tensor]]:
        """Return ⟨A⁺, low⟩ + ⟨A⁻, high⟩ and nothing for the source."""
        return by_interval(rows, own), []


def by_interval(rows: Tensor, own: Range) -> Tensor:
    """Return ⟨A⁺, low⟩ + ⟨A⁻, high⟩, (batch, rows): the least of ⟨A, value⟩ over the interval."""
    return dot(rows.clamp(min=0), own.low) + dot(rows.clamp(max=0), own.high)


def dot(rows: Tensor, values: Tensor) -> Tensor:
    """Return ⟨A, v⟩ for A (batch or 1, rows, *shape) and v (batch or 1, *shape), (batch, rows)."""
    return (rows.reshape(*rows.shape[:2], -1) @ values.reshape(len(values), -1, 1)).squeeze(-1)
