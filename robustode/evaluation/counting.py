"""A model that counts the rows that pass through it, forwards and backwards, whoever drives it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustode.models.base import Classifier
from robustode.sensitivity.linearise import Linearisation, linearise


class _CountBackward(torch.autograd.Function):
    """The identity, whose backward counts its rows."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, counted: Counted) -> Tensor:
        ctx.counted = counted
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.counted.backwards += len(grads[0])
        return grads[0], None


class Counted(nn.Module):
    """The model at whose boundary the harness counts passes; `bare` is the model itself, which is not counted.

    Attributes:
        forwards, backwards: rows so far. A cotangent of the fused sweep counts as one backward row.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.bare = model
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape
        self.forwards = self.backwards = 0
        nfe = getattr(model, "nfe", None)
        if nfe is not None:
            self.nfe = nfe

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the model and count."""
        self.forwards += len(x)
        logits = self.bare(x)
        return _CountBackward.apply(logits, self) if logits.requires_grad else logits  # type: ignore[return-value]

    def linearise(self, x: Tensor) -> Linearisation:
        """Return the model's own linearisation, counted."""
        self.forwards += len(x)
        return _CountedLinearisation(linearise(self.bare, x), self)

    def reset(self) -> None:
        """Start counting again."""
        self.forwards = self.backwards = 0


class _CountedLinearisation:
    def __init__(self, linear: Linearisation, counted: Counted) -> None:
        self._linear, self._counted = linear, counted
        self.logits = linear.logits

    def vjp(self, cotangent: Tensor) -> Tensor:
        self._counted.backwards += cotangent.shape[:-1].numel()
        return self._linear.vjp(cotangent)

    def jvp(self, delta: Tensor) -> Tensor:
        self._counted.forwards += len(delta)
        return self._linear.jvp(delta)
