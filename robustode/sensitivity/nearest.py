"""The class nearest in the linear model, and the gradient of the margin to a class."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.sensitivity.norms import dual


def nearest_class(logits: Tensor, rows: Tensor, own: Tensor, norm: str) -> Tensor:
    """Return the class k ≠ c of smallest (z_c − z_k) / ‖P_c − P_k‖ in the dual norm, (batch,).

    Where no gradient differs from that of c, it is the class of the smallest z_c − z_k.

    Args:
        logits: z, (batch, classes).
        rows: P, the Jacobian of the logits, (batch, classes, *input_shape).
        own: the classes c, (batch,).
        norm: "l2", "linf" or "l1", that of the perturbation.
    """
    index = torch.arange(len(logits), device=logits.device)
    difference, gap = rows[index, own][:, None] - rows, logits[index, own][:, None] - logits
    reach = gap / dual(difference.flatten(2), norm)
    reach = torch.where(torch.isfinite(reach), reach, torch.inf).scatter(1, own[:, None], torch.inf)
    gap = gap.scatter(1, own[:, None], torch.inf)
    return torch.where(torch.isfinite(reach).any(1), reach.argmin(1), gap.argmin(1))


def margin_gradient(rows: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Return P_c − P_k, the gradient of z_c − z_k for classes c = `own` and k = `other`, (batch, *input_shape)."""
    index = torch.arange(len(rows), device=rows.device)
    return rows[index, own] - rows[index, other]
