"""one-step: a single step along the gradient finds nothing that the stronger attacks missed."""

from __future__ import annotations

from torch import Tensor

from robustode.attacks.cards import resolve
from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.kinds import is_fgsm, is_one_step

_FGSM = {norm: f"foolbox:{word}FastGradientAttack" for norm, word in {"linf": "Linf", "l2": "L2", "l1": "L1"}.items()}


def run(case: Case) -> Found:
    """Count the survivors of all other attacks that FGSM breaks, at every radius; its rows are used if it was run."""
    worst: tuple[int, int, str, float, Tensor] | None = None
    for norm, radii in case.budgets.items():
        single = [card.name for card in case.cards if card.norm == norm and is_one_step(card)]
        fgsm = [card.name for card in case.cards if card.norm == norm and is_fgsm(card)]
        own = case.records[(case.records["norm"] == norm) & ~case.records["attack"].isin(single)]
        if len(own) == 0:
            continue
        for eps in radii:
            rows = case.survivors(norm, eps, without=single)
            broken = _broken(case, norm, eps, rows, [name for name in single if name not in fgsm], bool(fgsm))
            if worst is None or len(broken) > worst[0]:
                worst = (len(broken), len(rows), norm, eps, broken)
    if worst is None:
        return not_applicable("the run has no attack in more than one step")
    count, left, norm, eps, broken = worst
    text = f"FGSM breaks {count} of the {left} samples that the other attacks left at {norm} ε = {eps:g}"
    status = above(count, fail=case.slack, warn=case.slack / 2)
    samples = case.samples(broken)
    return Found(status=status, value=float(count), threshold=case.slack, text=text, samples=samples)


def _broken(case: Case, norm: str, eps: float, rows: Tensor, others: list[str], was_run: bool) -> Tensor:
    """Return the rows that FGSM breaks; `others` are the one-step attacks that are not it."""
    if was_run:
        left = set(case.survivors(norm, eps, without=others).tolist())
        return rows[[row not in left for row in rows.tolist()]]
    (card,) = resolve(_FGSM[norm], norms=[norm], params={"random_start": False})
    return rows[case.attack("one-step", card.build(eps), rows)]


CHECK = Check(
    id="one-step",
    title="one step is not better than many",
    cheap=True,
    source="Athalye et al. 2018, arXiv 1802.00420, section 3.1",
    advice="The attacks in many steps are hindered or badly set: mend their step sizes and losses, and look for masked "
    "gradients.",
    run=run,
)
