"""A model that counts the rows that pass through it, forwards and backwards, whoever drives it."""

from __future__ import annotations

from torch import Tensor, nn

from robustode.models.base import Classifier
from robustode.sensitivity.linearise import Linearisation, linearise


class Counted(nn.Module):
    """The model at whose boundary the harness counts passes; `bare` is the model itself, which is not counted.

    A backward is counted when a gradient arrives at the logits, so a second derivative of a loss that is not linear in
    them counts once more. Inside `torch.func.vmap` a batch of derivatives counts as one.

    Attributes:
        forwards, backwards: rows so far, times `draws`. A cotangent of the fused sweep counts as one backward row.
        draws: passes of the model in one answer; more than one where answers are averaged (`Averaged`).
        nfe: evaluations of the right-hand side in one pass, where the model says.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.bare = model
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape
        self.draws = int(getattr(model, "draws", 1))
        self.forwards = self.backwards = 0
        self.nfe: float | None = getattr(model, "nfe", None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the model and count."""
        self.forwards += len(x) * self.draws
        logits = self.bare(x)
        if logits.requires_grad:
            logits = logits.view_as(logits)
            logits.register_hook(self._arrived)
        return logits

    def _arrived(self, gradient: Tensor) -> None:
        self.backwards += len(gradient) * self.draws

    def linearise(self, x: Tensor) -> Linearisation:
        """Return the model's own linearisation, counted."""
        self.forwards += len(x) * self.draws
        return _CountedLinearisation(linearise(self.bare, x), self)

    def reset(self) -> None:
        """Start counting again."""
        self.forwards = self.backwards = 0


class _CountedLinearisation:
    def __init__(self, linear: Linearisation, counted: Counted) -> None:
        self._linear, self._counted = linear, counted
        self.logits = linear.logits

    def vjp(self, cotangent: Tensor) -> Tensor:
        self._counted.backwards += cotangent.shape[:-1].numel() * self._counted.draws
        return self._linear.vjp(cotangent)

    def jvp(self, delta: Tensor) -> Tensor:
        self._counted.forwards += len(delta) * self._counted.draws
        return self._linear.jvp(delta)
