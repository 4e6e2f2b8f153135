"""The fused sweep inside autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.solvers.flow import Flow


class Solve(torch.autograd.Function):
    """x(T) as an autograd node whose backward is the fused reverse sweep (once differentiable)."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, flow: Flow) -> Tensor:  # type: ignore[override]
        needs = ctx.needs_input_grad
        if not any(needs[:3]):
            return flow.forward(x)
        out, ctx.tape = flow.record(x, inputs=any(needs[1:3]))
        ctx.flow = flow
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, adjoint: Tensor):  # type: ignore[override]
        flow: Flow = ctx.flow
        gradient = None
        if _wanted(ctx, 1) or _wanted(ctx, 2):
            gradient = (torch.zeros_like(flow.weight), torch.zeros_like(flow.bias))
        pulled = flow.adjoint(ctx.tape, adjoint, gradient)
        return (pulled, *(gradient or (None, None)), None)


def _wanted(ctx, i: int) -> bool:
    """Whether the backward pass under way asks for the gradient of input i of a node.

    `needs_input_grad` only says that it could be asked for. An attack asks for the gradient of its inputs alone, of a
    model whose weights could be trained, and theirs would cost as much again as the sweep.
    """
    if not ctx.needs_input_grad[i]:
        return False
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[i][0])
    except RuntimeError:  # so the engine answers for a leaf that `torch.autograd.grad` was asked for
        return True
