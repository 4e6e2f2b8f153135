"""The right-hand side σ(K(t) x + b(t)), at a depth that all samples share and at a depth of each sample's own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robustode.solvers.activations import Activation
from robustode.solvers.depth import knot_depths
from robustode.solvers.operators import Operator


@dataclass(frozen=True)
class Field:
    """f(t, x) = σ(K(t) x + b(t)) with θ(t) piecewise linear through the knots, differentiable in x and the weights.

    States are (batch, features) for the solvers, whatever shape one of them has. Where one is not finite, f is NaN.

    Attributes:
        weight: (knots, ...), the knots of K.
        bias: (knots, rows), the knots of b.
        horizon: final depth T > 0.
        operator: what K is.
        shape: of one state, for the operator.
    """

    weight: Tensor
    bias: Tensor
    horizon: float
    activation: Activation
    operator: Operator
    shape: tuple[int, ...]

    @cached_property
    def _knots(self) -> list[tuple[Tensor, Tensor]]:
        # Taken apart once for a solve: the reverse pass then gathers the gradients of all evaluations in one tensor,
        # where indexing at every evaluation would make one of the size of all knots each time.
        return list(zip(self.weight.unbind(0), self.bias.unbind(0), strict=True))

    @property
    def segments(self) -> list[tuple[float, float]]:
        """Intervals of [0, T] in which θ has no kink: from knot to knot, or all of it if there is only one."""
        kinks = knot_depths(len(self.bias), self.horizon).tolist() if len(self.bias) > 1 else []
        return list(itertools.pairwise([0.0, *kinks, self.horizon]))

    def shared(self, t: Tensor, x: Tensor) -> Tensor:
        """Return f(t, x), (batch, features), for one depth t of shape ().

        It is differentiable in t too: a solver that chooses its first step from x moves the depths with it.
        """
        position = (t * (len(self._knots) / self.horizon) - 0.5).clamp(0.0, len(self._knots) - 1.0)
        k = int(position.detach().nan_to_num(0.0))
        if k == len(self._knots) - 1:
            return self._slope(self._affine(self._knots[k], x), x)
        share = (position - k).to(x.dtype)
        (w0, b0), (w1, b1) = self._knots[k], self._knots[k + 1]
        return self._slope(self._affine((torch.lerp(w0, w1, share), torch.lerp(b0, b1, share)), x), x)

    def each(self, segment: int, t: Tensor, x: Tensor) -> Tensor:
        """Return f(t_i, x_i) for every sample, (batch, features), for depths t of shape (batch,) in one segment.

        Between the knots k and k + 1, K(t) x = (1 − w) K_k x + w K_{k+1} x: two products with the knots instead of a
        matrix for each sample, which would take batch · features² numbers. It costs twice the multiplications of a
        shared depth, and memory of two states.
        """
        if segment in (0, len(self._knots)):  # constant beyond the outer knots
            return self._slope(self._affine(self._knots[min(segment, len(self._knots) - 1)], x), x)
        k = segment - 1
        share = (t.detach() * (len(self._knots) / self.horizon) - 0.5 - k).to(x.dtype).unsqueeze(1)
        before, after = self._affine(self._knots[k], x), self._affine(self._knots[k + 1], x)
        return self._slope(torch.lerp(before, after, share), x)

    def _slope(self, preactivation: Tensor, x: Tensor) -> Tensor:
        # relu(-inf) = 0 and tanh(inf) = 1 would let a solver go on from a state that has overflowed; 0 · x is NaN there
        return self.activation.apply(preactivation) + 0.0 * x

    def _affine(self, knot: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        return self.operator.affine(x.unflatten(1, self.shape), *knot).flatten(1)
