"""zero-gradient: the margin has a gradient at the samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.probing import BATCH
from robustode.models.base import Classifier
from robustode.sensitivity.linearise import linearise

SHARE = 0.01


def run(case: Case) -> Found:
    """Count correctly classified samples at which ∇(z_y − max_{k≠y} z_k) is exactly zero."""
    rows = case.correct
    if len(rows) == 0:
        return not_applicable("no sample is correctly classified")
    here = rows.to(case.shard.x.device)
    parts = zip(case.shard.x[here].split(BATCH), case.shard.y[here].split(BATCH), strict=True)
    zero = torch.cat([_is_zero(case.model, x, y) for x, y in parts]).cpu()
    share = float(zero.double().mean())
    status = above(share, fail=SHARE, warn=0.0)
    text = (
        f"the gradient of the margin is exactly zero at {int(zero.sum())} of {len(rows)} correctly classified samples"
    )
    return Found(status=status, value=share, threshold=SHARE, text=text, samples=case.samples(rows[zero]))


def _is_zero(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    linear = linearise(model, x)
    own = one_hot(y, model.classes)
    rival = linear.logits.masked_fill(own.bool(), -torch.inf).argmax(1)
    cotangent = (own - one_hot(rival, model.classes)).to(linear.logits)
    return (linear.vjp(cotangent) == 0).flatten(1).all(1)


CHECK = Check(
    id="zero-gradient",
    title="the margin has a gradient",
    cheap=True,
    source="Athalye et al. 2018, arXiv 1802.00420, section 3.1",
    advice="Attacks that follow gradients stand still there: remove the quantisation, clipping or saturation that "
    "hides the gradient, attack a smooth surrogate of it, or use attacks without gradients.",
    run=run,
)
