"""One reverse sweep of an sNODE: the Jacobian of the logits, at all depths on demand, and the weight term."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from robustode.models.snode import SNODE
from robustode.solvers.flow import Flow
from robustode.solvers.operators import Dense
from robustode.solvers.tape import Tape


class Swept(NamedTuple):
    """Result of a sweep for D depths (1: the output alone; N + 1: all depths 0, h, ..., T).

    Attributes:
        rows: derivatives of the logits (of the components read as logits, at an inner depth) with respect to the input,
            (batch, D, classes, *input_shape).
        weights: Σ_k G_k diag(var_k) G_kᵀ with G_k their derivatives with respect to knot k, (batch, D, classes,
            classes) float64, or None.
    """

    rows: Tensor
    weights: Tensor | None


@torch.no_grad()
def swept(model: SNODE, tape: Tape, batch: int, *, depths: bool, variances: dict[str, Tensor] | None) -> Swept:
    """Pull the identity back over a stored pass of `batch` samples, from T and, if `depths`, from all other depths.

    All depths travel in one sweep of (N + 1) classes cotangents a sample: those of a depth are zero until it is
    reached.

    Args:
        model: an sNODE on a fixed grid.
        tape: a pass stored by `model.flow.record`, with inputs if there are variances; or one whose slopes were
            averaged.
        batch: samples of the pass.
        depths: whether inner depths are asked for.
        variances: of the knots of "weight" and "bias", () or (knots,) each.
    """
    flow, count, classes = model.flow, model.steps + 1 if depths else 1, model.classes
    start = tape.starts[0]
    unit = torch.eye(classes, flow.bias.shape[-1], dtype=start.dtype, device=start.device)
    unit = model.read_transposed(unit)
    cotangent = start.new_zeros(batch, count, *unit.shape)
    cotangent[:, -1] = unit
    term = None if variances is None else _term(flow, cotangent, variances)
    pulled = cotangent = cotangent.flatten(1, 2)
    for n, pulled in enumerate(flow.adjoints(tape, cotangent, None if term is None else term.visit)):
        if depths and n:
            pulled.unflatten(1, (count, classes))[:, count - 1 - n] = unit
    rows = model.lift_transposed(pulled * model.encoding_scale).unflatten(1, (count, classes))
    return Swept(rows, None if term is None else term.finish())


class _Term(Protocol):
    """The weight term in the making."""

    def visit(self, n: int, i: int, mu: Tensor, z: Tensor) -> None: ...

    def finish(self) -> Tensor: ...


def window(flow: Flow) -> int:
    """Return the largest number of stages that see one knot."""
    counts = [0] * len(flow.bias)
    for step in flow.positions:
        for k, w in step:
            counts[k] += 1
            if w:
                counts[k + 1] += 1
    return max(counts)


def _term(flow: Flow, cotangent: Tensor, variances: dict[str, Tensor]) -> _Term:
    """Choose the cheaper way: inner products of gradients by pairs of stages, or the gradients themselves."""
    classes = cotangent.shape[2]
    by_pairs = isinstance(flow.operator, Dense) and window(flow) * classes <= flow.bias.shape[-1]
    return (PairedStages if by_pairs else Gradients)(flow, cotangent, variances)


class _Knots:
    """Keeps what each knot gathers while the sweep passes it, from the last knot to the first."""

    def __init__(self, flow: Flow, cotangent: Tensor, variances: dict[str, Tensor]) -> None:
        knots = len(flow.bias)
        self.flow = flow
        self.batch, self.count, self.classes = cotangent.shape[:3]
        self.variance = [variances[name].expand(knots).tolist() for name in ("weight", "bias")]
        self.total = cotangent.new_zeros(self.batch, self.count, self.classes, self.classes, dtype=torch.float64)
        self.open: dict[int, list] = {}

    def visit(self, n: int, i: int, mu: Tensor, z: Tensor) -> None:
        """Give what a stage brings to the one or two knots between which it lies, and close those left behind."""
        k, w = self.flow.positions[n][i]
        shares = {k: 1.0 - w, k + 1: w} if w else {k: 1.0}
        for knot in [knot for knot in self.open if knot > max(shares)]:
            self.close(knot)
        part = self.part(mu[: self.batch], z[: self.batch])
        for knot, share in shares.items():
            self.gather(self.open.setdefault(knot, []), part, share * self.flow.step)

    def finish(self) -> Tensor:
        """Return the sum over all knots."""
        for knot in list(self.open):
            self.close(knot)
        return self.total

    def close(self, knot: int) -> None:
        """Add the knot's part of the covariance."""
        weight, bias = (values[knot] for values in self.variance)
        self.total += self.product(self.open.pop(knot), weight, bias)

    part: Callable
    gather: Callable
    product: Callable


class PairedStages(_Knots):
    """Dense K: the gradient of a stage is μ zᵀ, and two have the inner product (μ·μ')(z·z'); none is formed."""

    def part(self, mu: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of μ (batch, depths, classes, features) and z (batch, features) in float64."""
        mu = mu.unflatten(1, (self.count, self.classes))
        return mu.to(torch.float64, copy=True), z.to(torch.float64, copy=True)

    def gather(self, knot: list, part: tuple[Tensor, Tensor], share: float) -> None:
        """Keep the stage."""
        knot.append((share, *part))

    def product(self, knot: list, weight: float, bias: float) -> Tensor:
        """Return Σ_{s,s'} share share' (μ_c·μ'_c')(var_W z·z' + var_b)."""
        shares, mus, states = zip(*knot, strict=True)
        z = torch.stack(states, 1)
        share = torch.tensor(shares, dtype=torch.float64, device=z.device)
        pairs = (z @ z.mT * weight + bias) * (share[:, None] * share)
        if len(shares) == 1:
            return mus[0] @ mus[0].mT * pairs[:, None]
        mu = torch.stack(mus, 2).flatten(2, 3)
        products = (mu @ mu.mT).unflatten(3, (len(shares), -1)).unflatten(2, (len(shares), -1))
        return torch.einsum("bdsctk,bst->bdck", products, pairs)


class Gradients(_Knots):
    """Any K: the gradients of every cotangent with respect to the knots that are open, formed one sample at a time."""

    def part(self, mu: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of all cotangents with respect to K and b of a stage: (batch, depths, classes, ·)."""
        flow = self.flow
        columns = flow.operator.columns(z, flow.weight[0]).double().unflatten(0, (len(z), -1))
        values = mu.flatten(3) if mu.dim() > 3 else mu.unsqueeze(-1)  # (batch, cotangents, out, positions)
        values = values.double()
        kernel = (values.flatten(1, 2) @ columns).reshape(self.batch, self.count, self.classes, -1)
        return kernel, values.sum(-1).unflatten(1, (self.count, self.classes))

    def gather(self, knot: list, part: tuple[Tensor, Tensor], share: float) -> None:
        """Add the stage's gradients to the knot's."""
        if not knot:
            knot.extend(torch.zeros_like(each) for each in part)
        for total, each in zip(knot, part, strict=True):
            total.add_(each, alpha=share)

    def product(self, knot: list, weight: float, bias: float) -> Tensor:
        """Return var_W G Gᵀ + var_b g gᵀ."""
        kernel, vector = knot
        return kernel @ kernel.mT * weight + vector @ vector.mT * bias
