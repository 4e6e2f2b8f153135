"""What RobustODE asks of a classifier, and nothing more."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Classifier(Protocol):
    """A `torch.nn.Module` that maps (batch, *input_shape) to logits (batch, classes) and knows its own input box.

    Attributes:
        bounds: (lo, hi), the box of valid inputs; budgets and distances are in its units. `forward` does not check it.
        classes: number of classes, at least 2.
        input_shape: shape of one sample, without the batch.
    """

    bounds: tuple[float, float]
    classes: int
    input_shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor: ...


def parameters_like(model: nn.Module | Classifier) -> tuple[torch.device, torch.dtype]:
    """Return the device and floating dtype of a model (CPU and float32 if it has no parameters)."""
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32
