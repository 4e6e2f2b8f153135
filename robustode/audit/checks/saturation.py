"""saturation: the softmax of the logits can still be told from 0 and 1, and the largest logit from the next."""

from __future__ import annotations

from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above
from robustode.audit.probing import logits_of

SHARE = 0.01


def run(case: Case) -> Found:
    """Count samples whose float32 softmax has an entry of exactly 0 or 1, or whose two largest logits are equal."""
    z = logits_of(case.model, case.shard.x)
    p, top = z.float().softmax(1), z.topk(2, dim=1).values
    ends, tied = ((p == 0) | (p == 1)).any(1), top[:, 0] == top[:, 1]
    bad = (ends | tied).cpu()
    share = float(bad.double().mean())
    text = (
        f"of {len(z)} samples {int(ends.sum())} have a softmax of exactly 0 or 1 in float32 and {int(tied.sum())} a "
        "tie of the two largest logits"
    )
    samples = case.samples(bad.nonzero().squeeze(1))
    return Found(status=above(share, fail=SHARE), value=share, threshold=SHARE, text=text, samples=samples)


CHECK = Check(
    id="saturation",
    title="the softmax is not saturated",
    cheap=True,
    source="Carlini & Wagner 2017, arXiv 1608.04644, section VIII",
    advice="The cross-entropy loses its gradient there: divide the logits by a constant before attacking (labels "
    "stay), or use attacks on differences of logits (DLR, CW, the sensitivity attack).",
    run=run,
)
