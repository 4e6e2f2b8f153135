"""Which attacks a protocol runs: cards that are installed, cards that are skipped, stored adversarial data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustode.attacks.card import Card
from robustode.attacks.cards import distinct, is_shorthand, resolve
from robustode.errors import AttackError, MissingDependency
from robustode.evaluation.protocol import Protocol
from robustode.evaluation.stored import Stored, read_stored
from robustode.models.base import Classifier


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The attacks of a protocol, in order.

    Attributes:
        cards: attacks that can run; no two have the same name.
        stored: adversarial data sets named by `also`.
        skipped: [{attack, reason}] of cards whose library is missing.
        unfit: [{attack, reason}] of cards that are not for the models at hand.
    """

    cards: tuple[Card, ...]
    stored: tuple[Stored, ...]
    skipped: tuple[dict[str, str], ...]
    unfit: tuple[dict[str, str], ...] = ()


def select_attacks(protocol: Protocol) -> Selection:
    """Find the cards that a protocol names and check every parameter of theirs.

    Raises:
        AttackError: an unknown name or a card that is not valid; parameters, but no shorthand that takes them.
        MissingDependency: no attack at all can run because of a library that is not installed.
    """
    base = Path(protocol.base) if protocol.base else None
    names = (protocol.attacks, *protocol.also)
    if protocol.params and not any(is_shorthand(name) for name in names):
        fix = "Write a card of your own, or name the implementation (torchattacks:PGD) together with --norm."
        got = ", ".join(sorted(protocol.params))
        with protocol.blaming("params"):
            raise AttackError("parameters", expected="none: the cards fix them", got=got, fix=fix)
    stored, cards = [], []
    for number, name in enumerate(names, start=-1):
        folder = Path(protocol.near(name))
        with protocol.blaming(*(("also", number) if number >= 0 else ("attacks",))):
            if name in protocol.also and folder.is_dir():
                stored.append(read_stored(folder, protocol.split))
            else:
                params = protocol.params if is_shorthand(name) else None
                cards += resolve(name, norms=protocol.norms, params=params, base=base)
    usable, skipped = _installed(distinct(cards))
    return Selection(cards=usable, stored=_named_apart(stored), skipped=skipped)


def _installed(cards: Sequence[Card]) -> tuple[tuple[Card, ...], tuple[dict[str, str], ...]]:
    usable, skipped = [], []
    missing: MissingDependency | None = None
    for card in cards:
        try:
            card.check()
            usable.append(card)
        except MissingDependency as error:
            missing = missing or error
            skipped.append({"attack": card.name, "reason": f"not installed ({error.package})"})
    if missing is not None and not usable:
        raise missing
    return tuple(usable), tuple(skipped)


def fitting(selection: Selection, models: Iterable[tuple[str, Classifier]]) -> Selection:
    """Return the selection without the cards that one of the models, (label, classifier), is not for.

    Of those for few input coordinates nothing is said where there are many: they are additions, and nothing is missing.

    Raises:
        AttackError: no attack is left.
    """
    usable, unfit, several = [], [], list(models)
    for card in selection.cards:
        reasons = [f"{reason} ({label})" for label, model in several if (reason := card.needs.unmet(model))]
        if reasons:
            unfit.append({"attack": card.name, "reason": reasons[0]})
        else:
            usable.append(card)
    if unfit and not usable and not selection.stored:
        raise AttackError("attacks", expected="at least one that is for the models", got=unfit_in_words(unfit))
    additions = {card.name for card in selection.cards if card.needs.features is not None}
    said = tuple(one for one in unfit if one["attack"] not in additions)
    return replace(selection, cards=tuple(usable), unfit=said)


def unfit_in_words(unfit: Iterable[Mapping[str, str]]) -> str:
    """Return one line that says which attacks are not applicable and why; "" if all are."""
    by_reason: dict[str, list[str]] = {}
    for one in unfit:
        by_reason.setdefault(one["reason"], []).append(one["attack"])
    parts = [f"{', '.join(attacks)}: {reason}" for reason, attacks in by_reason.items()]
    return f"Not applicable: {'; '.join(parts)}." if parts else ""


def _named_apart(stored: Sequence[Stored]) -> tuple[Stored, ...]:
    """Folders of the same name become stored-NAME, stored-NAME#2, ..."""
    names = unique_names([one.name for one in stored])
    return tuple(replace(one, name=name) for one, name in zip(stored, names, strict=True))


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names with "#2", "#3", ... put to those that came before."""
    out: list[str] = []
    for name in names:
        number, new = 1, name
        while new in out:
            number += 1
            new = f"{name}#{number}"
        out.append(new)
    return out


def resolved_attacks(selection: Selection) -> list[dict[str, Any]]:
    """Return what run.json says of every attack: every parameter of a card, and where stored points come from."""
    return [card.resolved() for card in selection.cards] + [
        {
            "name": one.name,
            "title": "stored adversarials",
            "implementation": "stored",
            "norm": one.norm,
            "kind": one.kind,
            "params": one.params_at(None),
        }
        for one in selection.stored
    ]
