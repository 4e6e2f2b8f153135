"""unbounded: with a ball that holds the whole box an attack breaks every sample that can be broken."""

from __future__ import annotations

import math

from robustode.attacks.cards import resolve
from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable

SPARE = 0.02
STEPS, STEP = 40, 0.1  # the step is this share of the radius
_PGD = {"linf": "foolbox:LinfPGD", "l2": "foolbox:L2PGD"}


def run(case: Case) -> Found:
    """Run PGD once at ε = the range (L∞) or the diameter of the box (L2): only a constant answer may be left."""
    norm = next((norm for norm in _PGD if norm in case.budgets), None)
    rows = case.correct
    if norm is None or len(rows) == 0:
        return not_applicable("no budget in L∞ or L2, or no sample that is correctly classified")
    lo, hi = case.model.bounds
    eps = (hi - lo) * (1.0 if norm == "linf" else math.sqrt(case.shard.x[0].numel()))
    (card,) = resolve(_PGD[norm], norms=[norm], params={"steps": STEPS, "rel_stepsize": STEP, "random_start": False})
    left = rows[~case.attack("unbounded", card.build(eps), rows)]
    accuracy = len(left) / len(case.shard.y)
    limit = float(case.shard.y.bincount().max()) / len(case.shard.y) + SPARE
    status = above(accuracy, fail=limit)
    text = f"PGD in {STEPS} steps at {norm} ε = {eps:g}, the whole box, leaves an accuracy of {accuracy:.1%}"
    samples = () if accuracy <= limit else case.samples(left)
    return Found(status=status, value=accuracy, threshold=limit, text=text, samples=samples)


CHECK = Check(
    id="unbounded",
    title="an unbounded attack breaks everything",
    cheap=False,
    source="Athalye et al. 2018, arXiv 1802.00420, section 3.1; Carlini et al. 2019, arXiv 1902.06705, section 5",
    advice="The attack does not reach points that are there: its gradients are masked, or it is broken.",
    run=run,
)
