"""The unrolled sNODE, its twin and the convolutional sNODE as a graph."""

from __future__ import annotations

from torch import Tensor

from robustode.certificates.propagate.curves import CURVES
from robustode.certificates.propagate.graph import Builder, Graph
from robustode.certificates.propagate.linear import (
    Linear,
    averaging,
    convolution,
    dense,
    rearrangement,
    scaling,
)
from robustode.models.snode import SNODE
from robustode.solvers.flow import Flow
from robustode.solvers.operators import Convolution


def unroll(model: SNODE) -> Graph:
    """Return the graph of a float64 sNODE on a fixed grid: encoding, every stage of every step, reading of the logits.

    Raises:
        ModelError: the method is adaptive.
    """
    flow = model.flow
    build = Builder(model.input_shape)
    state = _encoded(build, model)
    for n in range(flow.steps):
        state = _step(build, flow, state, n)
    return build.graph(_read(build, model, state))


def _encoded(build: Builder, model: SNODE) -> int:
    """Append x(0) = lift(scale (x − lo) + background)."""
    scale, lo = model.encoding_scale, model.bounds[0]
    background = model.config["background"]
    like = model.bias.detach()
    bias, size = like.new_tensor(background - lo * scale), like.new_tensor(abs(background) + abs(lo * scale))
    encoded = build.affine(0, scaling(like.new_tensor(scale), model.input_shape), bias, size)
    state = tuple(model.lift(like.new_zeros(1, *model.input_shape)).shape[1:])
    lift = rearrangement(model.lift, model.input_shape, state, back=model.lift_transposed)
    return build.affine(encoded, lift)


def _step(build: Builder, flow: Flow, state: int, n: int) -> int:
    """Append x + h Σ b_i k_i with k_i = σ(K_i (x + h Σ a_ij k_j) + b_i)."""
    slopes: list[int] = []
    curve = CURVES[flow.activation.name]
    for i in range(flow.tableau.stages):
        weight, bias = flow.parameters(n, i)
        stage = _sum(build, flow, state, slopes, flow.tableau.a[i])
        linear = _linear(flow, weight, build.nodes[stage].shape)
        slopes.append(build.activate(build.affine(stage, linear, flow.operator.spread(bias)), curve))
    return _sum(build, flow, state, slopes, flow.tableau.b)


def _sum(build: Builder, flow: Flow, state: int, slopes: list[int], weights: tuple[float, ...]) -> int:
    """Append x + h Σ w k, or nothing where all weights are 0."""
    used = [(k, flow.step * w) for k, w in zip(slopes, weights, strict=True) if w]
    if not used:
        return state
    return build.combine([state, *(k for k, _ in used)], [1.0, *(w for _, w in used)])


def _linear(flow: Flow, weight: Tensor, shape: tuple[int, ...]) -> Linear:
    if isinstance(flow.operator, Convolution):
        return convolution(weight, shape, padding=weight.shape[-1] // 2)
    return dense(weight, shape)


def _read(build: Builder, model: SNODE, state: int) -> int:
    """Append the logits: the first components of what is read of x(T)."""
    shape = build.nodes[state].shape
    if len(shape) > 1:
        state = build.affine(state, averaging(model.read, shape, (shape[0],)))
    features, classes = build.nodes[state].shape[0], model.classes
    return build.affine(state, rearrangement(lambda z: z[:, :classes], (features,), (classes,)))
