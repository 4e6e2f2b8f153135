"""The adjoint: cotangents of the logits pulled back to the input."""

from __future__ import annotations

from torch import Tensor

from robustode.errors import OptionError
from robustode.models.base import Classifier
from robustode.sensitivity.linearise import linearise


def adjoint(model: Classifier, x: Tensor, cotangent: Tensor) -> Tensor:
    """Return Jᵀw, the gradient of ⟨w, logits⟩ with respect to the input: λ(0) of −λ' = Wᵀ(σ'(a) ⊙ λ), λ(T) = w.

    Args:
        model: classifier; for an sNODE this is the exact discrete adjoint of its solver.
        x: (batch, *input_shape).
        cotangent: w, (batch, classes), or (batch, k, classes) for k of them in one sweep.

    Returns:
        (batch, *input_shape), or (batch, k, *input_shape).

    Raises:
        OptionError: `cotangent` does not fit.

    Source: arXiv 2205.13933, adjoint problem.
    """
    if cotangent.dim() not in (2, 3) or cotangent.shape[0] != len(x) or cotangent.shape[-1] != model.classes:
        expected = f"shape ({len(x)}, {model.classes}) or ({len(x)}, k, {model.classes})"
        raise OptionError("cotangent", expected=expected, got=tuple(cotangent.shape))
    return linearise(model, x).vjp(cotangent)
