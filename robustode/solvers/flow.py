"""The fused sweep of an sNODE: direct problem, sensitivity problem and exact discrete adjoint on one stored pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from robustode.solvers.activations import Activation
from robustode.solvers.depth import knot_position
from robustode.solvers.operators import Dense, Operator
from robustode.solvers.tableau import Tableau
from robustode.solvers.tape import TAPE_BYTES, Stage, Tape, filled

Visit = Callable[[int, int, Tensor, Tensor], None]
Gradient = tuple[Tensor, Tensor] | Visit


@dataclass(frozen=True)
class Flow:
    """The discrete flow x(0) → x(T) of x' = σ(K(t) x + b(t)) under one explicit method with `steps` equal steps.

    States are (batch, *state): (features,) where K is a matrix W, (channels, height, width) where it convolves.

    Attributes:
        weight: (knots, features, features), the knots of W; or (knots, channels, channels, s, s), those of a kernel.
        bias: (knots, features), the knots of b; or (knots, channels).
        horizon: final depth T.
        operator: what K does to a state.
    """

    weight: Tensor
    bias: Tensor
    horizon: float
    steps: int
    tableau: Tableau
    activation: Activation
    operator: Operator = field(default_factory=Dense)

    @property
    def step(self) -> float:
        """h = T / N."""
        return self.horizon / self.steps

    @cached_property
    def positions(self) -> list[list[tuple[int, float]]]:
        """For every step and stage, the knot and the weight of its neighbour that give θ there."""
        knots = len(self.bias)
        return [[knot_position((n + c) / self.steps, knots) for c in self.tableau.depth] for n in range(self.steps)]

    def parameters(self, n: int, i: int) -> tuple[Tensor, Tensor]:
        """Return (K, b) as stage i of step n sees them."""
        return self._interpolate(self.weight, n, i), self._interpolate(self.bias, n, i)

    def _interpolate(self, values: Tensor, n: int, i: int) -> Tensor:
        k, w = self.positions[n][i]
        return values[k] if w == 0.0 else torch.lerp(values[k], values[k + 1], w)

    def _stage_input(self, x: Tensor, slopes: list[Tensor], i: int) -> Tensor:
        out = x
        for a, k in zip(self.tableau.a[i], slopes, strict=True):
            if a:
                out = torch.add(out, k, alpha=self.step * a)
        return out

    def _advance(self, x: Tensor, n: int, record: list[tuple[Stage, ...]] | None, inputs: bool) -> Tensor:
        """One step, in place unless the stages' inputs are kept; appends its stages to `record` if there is one."""
        values: list[Tensor] = []
        states: list[Tensor] = []
        for i in range(self.tableau.stages):
            z = self._stage_input(x, values, i)
            weight, bias = self.parameters(n, i)
            values.append(self.activation.apply_(self.operator.affine(z, weight, bias)))
            states.append(z)
        out = x
        for b, value in zip(self.tableau.b, values, strict=True):
            if b:
                keep = inputs and out is x
                out = torch.add(out, value, alpha=self.step * b) if keep else out.add_(value, alpha=self.step * b)
        if record is not None:  # the values are not needed any more
            slopes = map(self.activation.slope_, values)
            record.append(tuple(Stage(s, z if inputs else None) for s, z in zip(slopes, states, strict=True)))
        return out

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return x(T) for x(0) of shape (batch, *state); stores nothing."""
        batch, x = len(x), filled(x)
        for n in range(self.steps):
            x = self._advance(x, n, None, False)
        return x[:batch]

    @torch.no_grad()
    def states(self, x: Tensor) -> Iterator[Tensor]:
        """Yield x at depths 0, h, 2h, ..., T."""
        batch, x = len(x), filled(x)
        yield x[:batch].clone()
        for n in range(self.steps):
            x = self._advance(x, n, None, False)
            yield x[:batch].clone()

    @torch.no_grad()
    def record(self, x: Tensor, *, inputs: bool = False) -> tuple[Tensor, Tape]:
        """Return x(T) and the tape that `tangent` and `adjoint` read; `inputs` keeps what weight derivatives need."""
        batch, x = len(x), filled(x)
        per_step = self.tableau.stages * x.numel() * x.element_size() * (2 if inputs else 1)
        segment = max(1, min(self.steps, TAPE_BYTES // max(per_step, 1)))
        starts: list[Tensor] = []
        stages: list[tuple[Stage, ...]] = []
        last = (self.steps - 1) // segment * segment
        for n in range(self.steps):
            if n % segment == 0:
                starts.append(x if inputs else x.clone())
            x = self._advance(x, n, stages if n >= last else None, inputs)
        return x[:batch], Tape(tuple(starts), segment, tuple(stages), inputs)

    @torch.no_grad()
    def _segment(self, tape: Tape, s: int) -> tuple[tuple[Stage, ...], ...]:
        if s == len(tape.starts) - 1:
            return tape.stages
        x, stages = tape.starts[s].clone(), []
        for n in range(s * tape.segment, (s + 1) * tape.segment):
            x = self._advance(x, n, stages, tape.inputs)
        return tuple(stages)

    def _recorded(self, tape: Tape, reverse: bool = False) -> Iterator[tuple[int, tuple[Stage, ...]]]:
        """Yield every step's number and stages, from depth 0 or from T, with one recomputed segment in memory."""
        for s in range(len(tape.starts))[:: -1 if reverse else 1]:
            steps = enumerate(self._segment(tape, s), start=s * tape.segment)
            yield from reversed(list(steps)) if reverse else steps

    def tangent(self, tape: Tape, tangent: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Return ξ(T) of the sensitivity problem ξ' = σ'(a) ⊙ (K ξ + δK x + δb), ξ(0) = `tangent`, on the grid of x.

        Args:
            tape: a pass stored by `record`, with `inputs=True` if `weight` or `bias` is given.
            tangent: (batch, *state), or (batch, k, *state) for k directions of each sample.
            weight, bias: δK and δb at the knots, shaped as the weights, or None for zero; only with one direction of
                each sample.
        """
        return deque(self.tangents(tape, tangent, weight, bias), maxlen=1).pop()

    def tangents(
        self, tape: Tape, tangent: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield ξ at depths 0, h, 2h, ..., T; arguments as for `tangent`."""
        batch, tangent = len(tangent), filled(tangent, tape.rows).contiguous()
        yield tangent[:batch]
        for n, stages in self._recorded(tape):
            values: list[Tensor] = []
            for i, stage in enumerate(stages):
                z = self._stage_input(tangent, values, i)
                value = self.operator.product(self._rows(z), self._interpolate(self.weight, n, i)).reshape(z.shape)
                if weight is not None and stage.input is not None:
                    value = self.operator.add_product(value, stage.input, self._interpolate(weight, n, i))
                if bias is not None:
                    value = value + self.operator.spread(self._interpolate(bias, n, i))
                values.append(value * self._beside(stage.slope, value))
            for b, value in zip(self.tableau.b, values, strict=True):
                if b:
                    tangent = torch.add(tangent, value, alpha=self.step * b)
            yield tangent[:batch]

    def _rows(self, state: Tensor) -> Tensor:
        """Return (batch, *state) or (batch, k, *state) as rows (batch · k, *state), a view of a contiguous `state`."""
        return state.reshape(-1, *state.shape[-self.operator.dims :])

    def _beside(self, slope: Tensor, state: Tensor) -> Tensor:
        """View σ' (batch, *state) so that it broadcasts against `state`, with or without an axis of directions."""
        return slope if state.dim() == slope.dim() else slope.unsqueeze(1)

    @torch.no_grad()
    def adjoint(self, tape: Tape, adjoint: Tensor, gradient: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return λ(0) = Pᵀ λ(T), the exact transpose of `tangent`.

        Args:
            tape: a pass stored by `record`.
            adjoint: λ(T), (batch, *state), or (batch, k, *state) for k cotangents of each sample in one sweep.
            gradient: (weight, bias) tensors shaped as the knots, to which the gradient of Σ λ(T)·x(T) with respect to
                the knots is added; needs a tape with inputs and one cotangent of each sample.
        """
        return deque(self.adjoints(tape, adjoint, gradient), maxlen=1).pop()

    def adjoints(self, tape: Tape, adjoint: Tensor, gradient: Gradient | None = None) -> Iterator[Tensor]:
        """Yield λ at depths T, T − h, ..., 0, each overwritten by the next; what is written into one travels on.

        Arguments as for `adjoint`; or `gradient` is called for every stage with the numbers of step and stage, μ and z,
        which it may not keep: h Σ μ zᵀ is the gradient with respect to K there, with any number of cotangents.
        """
        batch, adjoint = len(adjoint), filled(adjoint, tape.rows).contiguous()
        scratch = torch.empty_like(adjoint)
        yield adjoint[:batch]
        for n, stages in self._recorded(tape, reverse=True):
            self._adjoint_step(n, stages, adjoint, scratch, gradient)
            yield adjoint[:batch]

    def _adjoint_step(
        self,
        n: int,
        stages: tuple[Stage, ...],
        adjoint: Tensor,
        scratch: Tensor,
        gradient: Gradient | None,
    ) -> None:
        """Pull `adjoint` back over one step, in place: λ ← λ + h Σ_i ν_i with ν_i = K_iᵀ (σ'_i ⊙ μ_i).

        μ_i = b_i λ + h Σ_{j>i} a_ji ν_j is what reaches the value of stage i, in units of h. `scratch` holds
        σ'_i ⊙ μ_i: memory taken anew in each step can go back to the system in every step, at more than the cost of
        the arithmetic.
        """
        rows = self._rows(adjoint)
        before = adjoint if len(stages) == 1 else adjoint.clone()
        pulled: dict[int, Tensor] = {}
        for i in reversed(range(len(stages))):
            mu = self._reaching(i, before, pulled)
            if mu is None:
                continue
            mu = torch.mul(mu, self._beside(stages[i].slope, adjoint), out=scratch)
            if gradient is not None:
                self._accumulate(gradient, n, i, mu, stages[i].input)
            weight = self._interpolate(self.weight, n, i)
            if i == 0:
                self.operator.add_transposed_(rows, self._rows(mu), weight, self.step)
            else:
                pulled[i] = self.operator.transposed(self._rows(mu), weight).reshape(adjoint.shape)
                adjoint.add_(pulled[i], alpha=self.step)

    def _reaching(self, i: int, adjoint: Tensor, pulled: dict[int, Tensor]) -> Tensor | None:
        b = self.tableau.b[i]
        mu = None if b == 0 else adjoint if b == 1 else adjoint * b
        for j, nu in pulled.items():
            a = self.tableau.a[j][i]
            if a:
                mu = nu * (self.step * a) if mu is None else torch.add(mu, nu, alpha=self.step * a)
        return mu

    def _accumulate(self, gradient: Gradient, n: int, i: int, mu: Tensor, z: Tensor | None) -> None:
        if z is None:
            raise RuntimeError("weight gradients need a tape recorded with inputs=True")
        if not isinstance(gradient, tuple):
            return gradient(n, i, mu, z)
        k, w = self.positions[n][i]
        total = self.operator.bias_gradient(mu)
        if w == 0.0:
            self.operator.add_weight_gradient_(gradient[0][k], mu, z, self.step)
            gradient[1][k].add_(total, alpha=self.step)
            return
        outer = self.operator.weight_gradient(mu, z, self.weight.shape[1:])
        for knot, share in ((k, 1.0 - w), (k + 1, w)):
            gradient[0][knot].add_(outer, alpha=share * self.step)
            gradient[1][knot].add_(total, alpha=share * self.step)
