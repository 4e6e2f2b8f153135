"""The fused sweep as a node of autograd."""

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
        if any(ctx.needs_input_grad[1:3]):
            gradient = (torch.zeros_like(flow.weight), torch.zeros_like(flow.bias))
        pulled = flow.adjoint(ctx.tape, adjoint, gradient)
        return (pulled, *(gradient or (None, None)), None)
