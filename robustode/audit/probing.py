"""Small things that several checks need: spread-out rows, logits in batches, differences of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.models.base import Classifier

FEW = 64  # samples that a cheap check looks at where not all are asked for
BATCH = 256


def spread(rows: Tensor, most: int = FEW) -> Tensor:
    """Return at most `most` of some rows, evenly spaced among them."""
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most).round().long()]


@torch.no_grad()
def logits_of(model: Classifier, x: Tensor) -> Tensor:
    """Return the logits (batch, classes) of inputs (batch, *input_shape), 256 at a time."""
    return torch.cat([model(part) for part in x.split(BATCH)]) if len(x) else x.new_zeros(0, model.classes)


def largest(logits: Tensor) -> float:
    """Return the largest |z| that is finite; 1 where there is none or it is zero."""
    size = float(logits.nan_to_num(0.0, 0.0, 0.0).abs().max()) if logits.numel() else 0.0
    return size or 1.0


def gap(first: Tensor, second: Tensor) -> Tensor:
    """Return max_k |z_k − z'_k| / max |z| of each sample, (batch,) float64, with max |z| over all of `first`.

    It is +inf where only one of the two is finite.
    """
    change = ((first.double() - second.double()).abs() / largest(first)).nan_to_num(torch.inf)
    both = ~first.isfinite() & ~second.isfinite()
    return torch.where(both, 0.0, change).amax(1)


def margins(logits: Tensor) -> Tensor:
    """Return by how much the largest logit exceeds the next, over max |z| of all, (batch,) float64."""
    top = logits.double().topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]) / largest(logits)
