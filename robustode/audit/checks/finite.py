"""finite: logits and gradients are numbers, at the samples, inside the box and where the attacks ended."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.audit.case import Case
from robustode.audit.check import Check, Found
from robustode.audit.finding import Verdict

POINTS = 100  # random points of the box
GRADIENTS = 64  # samples whose gradients are looked at
BATCH = 256


def run(case: Case) -> Found:
    """Count inputs whose logits or gradients are not finite: every sample, 100 points of the box, attacked points."""
    x, model = case.shard.x, case.model
    lo, hi = model.bounds
    draw = torch.rand(POINTS, *x.shape[1:], generator=case.generator("finite"), dtype=torch.float64)
    box = (lo + (hi - lo) * draw).to(x)
    bad = ~_finite_logits(model, x)
    bad[: min(GRADIENTS, len(x))] |= ~_finite_gradients(model, x[:GRADIENTS])
    outside = int((~_finite_logits(model, box)).sum()) + int((~_finite_gradients(model, box[:GRADIENTS])).sum())
    attacked = case.records.loc[case.records["adv_pred"] == -1, "sample"].unique()
    samples = sorted({*case.samples(bad.nonzero().squeeze(1)), *map(int, attacked)})
    count = len(samples) + outside
    text = (
        f"{int(bad.sum())} of {len(x)} samples, {outside} of {POINTS} random points of the box and {len(attacked)} "
        "attacked points have a logit or gradient that is not finite"
    )
    status = Verdict.FAIL if count else Verdict.PASS
    return Found(status=status, value=float(count), threshold=0.0, text=text, samples=tuple(samples))


@torch.no_grad()
def _finite_logits(model: torch.nn.Module, x: Tensor) -> Tensor:
    return torch.cat([model(part).isfinite().all(1) for part in x.split(BATCH)])


def _finite_gradients(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Whether the gradient of the largest logit with respect to the input is finite; True where there is none."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        top = model(leaf).amax(1).sum()
        if not top.requires_grad:
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        (gradient,) = torch.autograd.grad(top, leaf, allow_unused=True)
    if gradient is None:
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    return gradient.flatten(1).isfinite().all(1)


CHECK = Check(
    id="finite",
    title="logits and gradients are finite",
    cheap=True,
    source="Carlini et al. 2019, arXiv 1902.06705, section 5",
    advice="Find the layer that overflows or divides by zero; a point without an answer counts as broken.",
    run=run,
)
