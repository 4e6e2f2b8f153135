"""monotone: with a larger budget an attack breaks more, not less."""

from __future__ import annotations

import pandas as pd

from robustode.attacks.base import Status
from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.kinds import iterative

_RAN = {Status.SUCCESS.value, Status.FAILED.value, Status.MISCLASSIFIED.value}


def run(case: Case) -> Found:
    """Look for the largest fall of the raw number of successes from one radius to any larger one, attack by attack."""
    falls = {}
    for norm in case.budgets:
        for card in iterative(case.cards, norm):
            rows = pd.DataFrame(case.records[(case.records["attack"] == card.name) & (case.records["norm"] == norm)])
            if len(set(rows["eps"])) < 2 or not set(rows["status"]) <= _RAN:
                continue
            falls[card.name] = _fall(rows)
    if not falls:
        return not_applicable("no attack in many steps ran at two radii on all samples")
    name = max(falls, key=lambda key: falls[key][0])
    fall, start, end = falls[name]
    text = f"the successes of {name} fall by {fall}"
    text += f" from ε = {start:g} to {end:g}" if fall else " from any radius to a larger one"
    text += f"; looked at: {', '.join(falls)}"
    status = above(fall, fail=case.slack, warn=case.slack / 2)
    return Found(status=status, value=float(fall), threshold=case.slack, text=text)


def _fall(rows: pd.DataFrame) -> tuple[int, float, float]:
    """Return (largest fall, from which radius, to which); (0, ...) where successes never fall."""
    at, won = rows["eps"].to_numpy(dtype=float), rows["status"].to_numpy() == Status.SUCCESS.value
    radii = sorted(set(at.tolist()))
    successes = [int(won[at == eps].sum()) for eps in radii]
    worst = (0, radii[0], radii[0])
    for i, before in enumerate(successes):
        for j in range(i + 1, len(successes)):
            worst = max(worst, (before - successes[j], radii[i], radii[j]), key=lambda found: found[0])
    return worst


CHECK = Check(
    id="monotone",
    title="success does not fall as the budget grows",
    cheap=True,
    source="Carlini et al. 2019, arXiv 1902.06705, section 5; Athalye et al. 2018, arXiv 1802.00420, section 3.1",
    advice="The attack loses its way in larger balls: give it more steps, a step size in proportion to ε, and "
    "restarts, and let it return its best point.",
    run=run,
)
