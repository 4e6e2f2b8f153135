"""batch-invariance: the answer for a sample does not depend on the others in its batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.finding import Verdict
from robustode.audit.probing import gap, logits_of, margins, spread
from robustode.evaluation.eot import Averaged, answers_differently
from robustode.models.snode import SNODE

MARGIN = 1e-3  # a label that changes at a larger margin is no matter of rounding
FAIL, WARN = 1e-3, 1e-4  # differences of logits; all three over the largest logit
SAMPLES = 32


def run(case: Case) -> Found:
    """Compare the logits in one batch with those alone, in another order, and among random points of the box."""
    rows = spread(torch.arange(len(case.shard.y)), SAMPLES)
    x = case.shard.x[rows.to(case.shard.x.device)]
    if isinstance(case.model, Averaged) and answers_differently(case.model, x):
        return not_applicable("the model draws anew for every batch, so that no two batches can be compared")
    together = logits_of(case.model, x)
    sure = margins(together) > MARGIN
    worst, changed = torch.zeros_like(sure, dtype=torch.float64), torch.zeros_like(sure)
    sizes = {}
    for name, other in _others(case, x).items():
        difference = gap(together, other)
        sizes[name] = float(difference.max())
        worst = torch.maximum(worst, difference)
        changed |= (other.argmax(1) != together.argmax(1)) & sure
    value = float(worst.max())
    status = Verdict.FAIL if bool(changed.any()) else above(value, fail=FAIL, warn=WARN)
    text = (
        f"logits of {len(rows)} samples differ by at most {value:.2g} of the largest "
        f"({', '.join(f'{name} {size:.2g}' for name, size in sizes.items())}), {int(changed.sum())} labels change"
    )
    if status in (Verdict.FAIL, Verdict.WARN):
        text += _reason(case.model)
    bad = (changed | ~(worst <= WARN)).cpu()
    samples = case.samples(rows[bad])
    return Found(status=status, value=value, threshold=FAIL, text=text, samples=samples, details=sizes)


def _others(case: Case, x: Tensor) -> dict[str, Tensor]:
    """The logits of the same samples in other company."""
    draws = case.generator("batch-invariance")
    lo, hi = case.model.bounds
    order = torch.randperm(len(x), generator=draws).to(x.device)
    mates = (lo + (hi - lo) * torch.rand(x.shape, generator=draws, dtype=torch.float64)).to(x)
    half = (len(x) + 1) // 2
    parts = [logits_of(case.model, torch.cat([part, mates]))[: len(part)] for part in x.split(half)]
    return {
        "alone": torch.cat([logits_of(case.model, one) for one in x.split(1)]),
        "permuted": logits_of(case.model, x[order])[order.argsort()],
        "other mates": torch.cat(parts),
    }


def _reason(model: Any) -> str:
    """Name what is known to couple the samples of a batch, where the model has it."""
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    if any(
        isinstance(part, SNODE) and part.solver is not None and part.solver.backend == "torchdiffeq" for part in parts
    ):
        return (
            ". Its torchdiffeq solver chooses every step by an error norm over the whole batch, so that all samples "
            "share their steps: this is so by design of the solver"
        )
    norms = [part for part in parts if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if any(part.training or not part.track_running_stats for part in norms):
        return ". Its batch normalisation uses the statistics of the batch: it is not in eval mode, or keeps none"
    return ""


CHECK = Check(
    id="batch-invariance",
    title="a sample's answer does not depend on its batch",
    cheap=True,
    source="RobustODE, the audit of solvers; torchdiffeq's step control, Chen et al. 2018, arXiv 1806.07366",
    advice="Deploy a fixed step, or step control for each sample (torchode), instead of an adaptive torchdiffeq "
    "method, and put batch normalisation into eval mode; until then evaluate one sample at a time.",
    run=run,
)
