"""logits: what the losses of the attacks take for logits are not probabilities."""

from __future__ import annotations

from robustode.audit.case import Case
from robustode.audit.check import Check, Found
from robustode.audit.finding import Verdict
from robustode.audit.kinds import takes_logits
from robustode.audit.probing import logits_of

SUM = 1e-4


def run(case: Case) -> Found:
    """Look whether all outputs lie in [0, 1] and sum to 1: a softmax of a softmax is nearly flat."""
    z = logits_of(case.model, case.shard.x).double()
    alike = ((z >= 0) & (z <= 1)).all(1) & ((z.sum(1) - 1).abs() <= SUM)
    share = float(alike.double().mean())
    softmax = [card.name for card in case.cards if takes_logits(card)]
    text = f"{int(alike.sum())} of {len(z)} outputs lie in [0, 1] and sum to 1 within {SUM:g}"
    if not bool(alike.all()):
        return Found(status=Verdict.PASS, value=share, threshold=1.0, text=text)
    text += ": they are probabilities"
    if not softmax:
        return Found(status=Verdict.WARN, value=share, threshold=1.0, text=text + "; no attack of the run takes logits")
    text += f", of which {', '.join(softmax)} take the softmax again"
    return Found(status=Verdict.FAIL, value=share, threshold=1.0, text=text)


CHECK = Check(
    id="logits",
    title="the outputs are logits",
    cheap=True,
    source="Carlini & Wagner 2017, arXiv 1608.04644, section VIII",
    advice="Give the outputs before the softmax (--output names another output of the module).",
    run=run,
)
