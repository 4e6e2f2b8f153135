"""What a card's attack is, as far as a check must know: one step or many, and whether its loss takes logits."""

from __future__ import annotations

from collections.abc import Iterable

from robustode.attacks.card import Card

_NOT_ITERATIVE = ("GN", "VANILA", "Pixle", "OnePixel")

# torchattacks whose default loss is the cross-entropy (or KL divergence) of the softmax of the outputs.
_SOFTMAX = (
    *("FGSM", "BIM", "RFGSM", "PGD", "EOTPGD", "FFGSM", "TPGD", "MIFGSM", "UPGD", "DIFGSM", "TIFGSM", "Jitter"),
    *("NIFGSM", "PGDRS", "SINIFGSM", "VMIFGSM", "VNIFGSM", "PIFGSM", "PIFGSMPP", "PGDL2", "PGDRSL2", "APGD"),
    "AutoAttack",
)
# How the names of foolbox's attacks on the cross-entropy end.
_SOFTMAX_ENDS = (
    *("FGM", "FGSM", "PGD", "DescentAttack", "IterativeAttack", "FastGradientAttack", "FastGradientMethod"),
    *("DDNAttack", "VirtualAdversarialAttack"),
)


def _implementation(card: Card) -> str:
    return card.implementation.partition(":")[2]


def is_fgsm(card: Card) -> bool:
    """Whether it is one step along the gradient of the loss, from the clean point."""
    name = _implementation(card)
    if card.provider == "torchattacks":
        return name == "FGSM"
    return card.provider == "foolbox" and (name in ("FGM", "FGSM") or name.endswith("FastGradientAttack"))


def is_one_step(card: Card) -> bool:
    """Whether it takes one step of the whole budget in some direction."""
    own = card.implementation == "robustode:one-step"
    return own or is_fgsm(card) or _implementation(card) == "FFGSM" or card.params.get("steps") == 1


def iterative(cards: Iterable[Card], norm: str) -> list[Card]:
    """Return the attacks that search a ball of this norm in many steps; no minimal-norm attack and no mere noise."""
    return [
        card
        for card in cards
        if card.norm == norm
        and card.kind == "budget"
        and not is_one_step(card)
        and _implementation(card) not in _NOT_ITERATIVE
        and "Noise" not in card.implementation
    ]


def takes_logits(card: Card) -> bool:
    """Whether its loss applies a softmax to the outputs, so that they must be logits."""
    name = _implementation(card)
    if card.provider == "torchattacks":
        return name in _SOFTMAX and card.params.get("loss", "ce") != "dlr"
    return card.provider == "foolbox" and name.endswith(_SOFTMAX_ENDS)
