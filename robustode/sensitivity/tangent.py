"""The sensitivity problem: how the logits move when the input or the weights are perturbed."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.errors import OptionError
from robustode.models.base import Classifier
from robustode.models.snode import SNODE
from robustode.sensitivity.linearise import linearise


def tangent(model: Classifier, x: Tensor, delta: Tensor) -> Tensor:
    """Return Jδ, the first-order change of the logits: ξ(T) of ξ' = σ'(a) ⊙ W ξ, ξ(0) = δ, on the grid of x.

    Args:
        model: classifier.
        x: (batch, *input_shape).
        delta: δ, the perturbation of the input in its own units, shape of `x`.

    Returns:
        (batch, classes).

    Raises:
        OptionError: `delta` does not have the shape of `x`.

    Source: arXiv 2205.13933, sensitivity problem.
    """
    if delta.shape != x.shape:
        raise OptionError("delta", expected=f"shape {tuple(x.shape)}", got=tuple(delta.shape))
    return linearise(model, x).jvp(delta)


@torch.no_grad()
def weight_tangent(model: SNODE, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the first-order change of the final state under (δW, δb): ξ' = σ'(a) ⊙ (W ξ + δW x + δb), ξ(0) = 0.

    Args:
        model: an sNODE, dense or convolutional, or its layered twin.
        x: (batch, *input_shape).
        weight, bias: δW and δb at the knots, shaped as `model.weight` and `model.bias`.

    Returns:
        The change of `model.final_state`: ξ(T), (batch, features), or its spatial means, (batch, channels); the first
        `classes` components are the change of the logits.

    Raises:
        OptionError: the model is no sNODE, or the perturbation does not have the shape of its weights.

    Source: arXiv 2205.13933, general sensitivity problem.
    """
    if not isinstance(model, SNODE):
        raise OptionError("weight tangent", expected="an sNODE or layered model", got=type(model).__name__)
    if weight.shape != model.weight.shape or bias.shape != model.bias.shape:
        expected = f"shapes {tuple(model.weight.shape)} and {tuple(model.bias.shape)}"
        raise OptionError("weight perturbation", expected=expected, got=(tuple(weight.shape), tuple(bias.shape)))
    model.check_shape(x)
    x0 = model.encode(x)
    flow = model.flow
    _, tape = flow.record(x0, inputs=True)
    return model.read(flow.tangent(tape, torch.zeros_like(x0), weight, bias))
