"""The Jacobian of the logits with respect to the input."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.models.base import Classifier
from robustode.sensitivity.linearise import linearise

CHUNK_BYTES = 256 * 2**20  # largest batch of adjoints in flight


def rows_at_once(model: Classifier, x: Tensor) -> int:
    """Return how many samples' Jacobians fit into `CHUNK_BYTES`, at least one."""
    return max(1, CHUNK_BYTES // max(1, model.classes * x[:1].numel() * x.element_size()))


def jacobian(model: Classifier, x: Tensor) -> Tensor:
    """Return J = ∂logits/∂input at every sample, (batch, classes, *input_shape).

    All classes of all samples travel as cotangents in one reverse sweep (sNODE) or one reverse pass for each class (any
    other module); samples are taken in chunks so that the adjoints in flight stay under 256 MiB.

    Args:
        model: classifier whose samples do not interact.
        x: (batch, *input_shape).
    """
    parts = []
    for part in x.split(rows_at_once(model, x)):
        linear = linearise(model, part)
        eye = torch.eye(model.classes, dtype=linear.logits.dtype, device=linear.logits.device)
        parts.append(linear.vjp(eye.expand(len(part), -1, -1)))
    return torch.cat(parts) if parts else x.new_zeros(0, model.classes, *model.input_shape)
