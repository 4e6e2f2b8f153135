"""determinism: asked again, the model answers the same."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above
from robustode.audit.finding import Verdict
from robustode.audit.probing import gap, logits_of, spread
from robustode.evaluation.eot import Averaged

REPEATS = 5
LOGITS = 1e-4  # largest difference of logits, over the largest of them
AVERAGED = 0.01  # share of the samples whose averaged answer may change, where the user asked for averages


def run(case: Case) -> Found:
    """Ask for the same batch 5 times; a randomised model continues its stream of draws from one to the next."""
    rows = spread(torch.arange(len(case.shard.y)))
    x = case.shard.x[rows.to(case.shard.x.device)]
    answers = [logits_of(case.model, x) for _ in range(REPEATS)]
    labels = torch.stack([z.argmax(1) for z in answers])
    changed = (labels != labels[0]).any(0).cpu()
    difference = torch.stack([gap(answers[0], z) for z in answers[1:]]).amax(0).cpu()
    if isinstance(case.model, Averaged):
        return _averaged(case, rows, changed, difference, case.model.draws)
    value = float(difference.max())
    status = Verdict.FAIL if bool(changed.any()) else above(value, fail=LOGITS)
    text = (
        f"in {REPEATS} repeats {int(changed.sum())} of {len(rows)} labels change and logits differ by at most "
        f"{value:.2g} of the largest"
    )
    bad = changed | ~(difference <= LOGITS)
    return Found(status=status, value=value, threshold=LOGITS, text=text, samples=case.samples(rows[bad]))


def _averaged(case: Case, rows: Tensor, changed: Tensor, difference: Tensor, draws: int) -> Found:
    """Means of finitely many draws always differ a little: what must hold still is their label."""
    share = float(changed.double().mean())
    status = above(share, fail=AVERAGED, warn=0.0)
    text = (
        f"answers are means of {draws} draws (--eot {draws}), and judged as such: in {REPEATS} repeats "
        f"{int(changed.sum())} of {len(rows)} labels change; logits differ by at most "
        f"{float(difference.max()):.2g} of the largest"
    )
    return Found(status=status, value=share, threshold=AVERAGED, text=text, samples=case.samples(rows[changed]))


CHECK = Check(
    id="determinism",
    title="repeats give the same answer",
    cheap=True,
    source="Carlini et al. 2019, arXiv 1902.06705, section 5",
    advice="Average over the model's randomness with --eot N, or with a larger N until labels no longer change.",
    run=run,
)
