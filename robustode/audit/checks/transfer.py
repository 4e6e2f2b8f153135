"""transfer: adversarials of other models, or of the same one under another solver, do not break the deployed one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from robustode.attacks.base import Attack
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.audit.assault import Trial, assault
from robustode.audit.case import Case
from robustode.audit.check import Check, Found, not_applicable
from robustode.audit.pgd import PGD
from robustode.audit.variants import solver_variants

STEPS = 40  # of PGD on the other model


def run(case: Case) -> Found:
    """Count survivors that PGD and the sensitivity attack on other models break; the deployed one is the judge."""
    others = (*case.transfer, *solver_variants(case.model))
    if not others:
        return not_applicable("no other model: none was named (--transfer), and this one has no other solver")

    def trials(norm: str, eps: float) -> Iterator[Trial]:
        for label, other in others:
            for name, build in _attacks(norm, eps):
                yield Trial(name=f"{name} on {label}", build=build, model=other)

    return assault(case, "transfer", trials)


def _attacks(norm: str, eps: float) -> list[tuple[str, partial[Attack]]]:
    return [
        (f"PGD-{STEPS}", partial(PGD, norm=norm, eps=eps, steps=STEPS)),
        ("sensitivity", partial(SensitivityAttack, norm=norm, eps=eps)),
    ]


CHECK = Check(
    id="transfer",
    title="adversarials of other models do not break what the attacks could not",
    cheap=False,
    source="Athalye et al. 2018, arXiv 1802.00420, section 3.1; Carlini et al. 2019, arXiv 1902.06705, checklist",
    advice="The model's own gradients mislead attacks: attack the other model too, and quote the number after audit.",
    run=run,
)
