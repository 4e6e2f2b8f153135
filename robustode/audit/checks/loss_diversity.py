"""loss-diversity: attacks on other losses do not break what those of the run left standing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from robustode.attacks.adapters.torchattacks import build_torchattacks
from robustode.attacks.base import Attack
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.audit.assault import Trial, assault
from robustode.audit.case import Case
from robustode.audit.check import Check, Found
from robustode.audit.pgd import PGD
from robustode.errors import AttackError

STEPS, TARGETED_STEPS = 50, 20  # of APGD; the targeted one has as many for each class


def run(case: Case) -> Found:
    """Count survivors broken by APGD on the cross-entropy, on DLR and on targeted DLR, by PGD on the margin, and by the
    sensitivity attack within ε."""
    classes = case.model.classes

    def trials(norm: str, eps: float) -> Iterator[Trial]:
        apgd = partial(_apgd, norm, eps, classes)
        yield Trial(name="PGD-margin", build=partial(PGD, norm=norm, eps=eps, loss="margin"))
        yield Trial(name="APGD-CE", build=partial(apgd, "APGD", 2, loss="ce", steps=STEPS))
        yield Trial(name="APGD-DLR", build=partial(apgd, "APGD", 3, loss="dlr", steps=STEPS))
        yield Trial(name="APGD-T", build=partial(apgd, "APGDT", 4, steps=TARGETED_STEPS))
        yield Trial(name="sensitivity", build=partial(SensitivityAttack, norm=norm, eps=eps))

    return assault(case, "loss-diversity", trials)


def _apgd(norm: str, eps: float, classes: int, name: str, least: int, **params: str | int) -> Attack:
    """Return an APGD of torchattacks; its loss needs `least` classes."""
    if classes < least:
        raise AttackError("its loss", expected=f"at least {least} classes", got=classes)
    return build_torchattacks(name, norm=norm, eps=eps, params=params)


CHECK = Check(
    id="loss-diversity",
    title="attacks on other losses do not break what the run's left standing",
    cheap=False,
    source="Croce and Hein 2020, arXiv 2003.01690; Carlini and Wagner 2017, arXiv 1608.04644",
    advice="The loss of the run's attacks has little gradient here: use a strong suite, quote the number after audit.",
    run=run,
)
