"""The constraint that a row of the search drives below zero: a margin, hard or soft, of all classes or of one."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def constraint(
    logits: Tensor, own: Tensor, *, targeted: bool, candidate: Tensor | None = None, temperature: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return g and its cotangent ∂g/∂z, for g = z_c − τ log Σ_{k≠c} exp(z_k / τ), or −g if `targeted`.

    τ = `temperature` · (max z − min z) is taken as a constant, so that nothing depends on the scale of the logits.

    At τ = 0 it is the margin z_c − max_{k≠c} z_k, negative where the answer is not c; targeted, with c the target, it
    is negative where the answer is c. A soft margin weighs all classes; it is lower, targeted higher.

    Args:
        logits: z, (rows, classes).
        own: c, (rows,): the label, or the target.
        candidate: (rows,), the only class k that counts; None for all of them.
        temperature: ≥ 0.

    Returns:
        g, (rows,), +inf where a logit is not finite; and the cotangent, (rows, classes).
    """
    others = logits.scatter(1, own[:, None], -math.inf)
    if candidate is not None:
        only = torch.full_like(logits, -math.inf)
        others = only.scatter(1, candidate[:, None], logits.gather(1, candidate[:, None]))
    if temperature > 0:
        spread = (logits.amax(1, keepdim=True) - logits.amin(1, keepdim=True)).nan_to_num(nan=0.0, posinf=0.0)
        tau = (temperature * spread).clamp_min(torch.finfo(logits.dtype).tiny)
        share = (others / tau).softmax(1)
        rival = tau.squeeze(1) * torch.logsumexp(others / tau, 1)
    else:
        highest = others.argmax(1, keepdim=True)
        share = torch.zeros_like(logits).scatter(1, highest, 1.0)
        rival = others.gather(1, highest).squeeze(1)
    sign = -1.0 if targeted else 1.0
    value = sign * (logits.gather(1, own[:, None]).squeeze(1) - rival)
    value = torch.where(torch.isfinite(logits).all(1), value, math.inf)
    cotangent = -share.nan_to_num(nan=0.0)
    return value, sign * cotangent.scatter_add(1, own[:, None], torch.ones_like(rival)[:, None])
