"""Cards and suites by name or path: what `--attacks` and `--also` stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustode.attacks.adapters.foolbox import is_minimal as foolbox_is_minimal
from robustode.attacks.adapters.torchattacks import is_minimal as torchattacks_is_minimal
from robustode.attacks.card import LIBRARIES, OWN, Card, make_card, read_card
from robustode.attacks.norms import NORMS, check_norm
from robustode.errors import AttackError, unknown
from robustode.resources import read_toml, shipped
from robustode.toml_lines import place

_SUITE_KEYS = ("title", "attacks", "suites", "cascade")


def card_names() -> tuple[str, ...]:
    """Names of the shipped cards."""
    return tuple(sorted(path.stem for path in shipped("attacks").glob("*.toml")))


def suite_names() -> tuple[str, ...]:
    """Names of the shipped suites."""
    return tuple(sorted(path.stem for path in (shipped("attacks") / "suites").glob("*.toml")))


def is_shorthand(name: str) -> bool:
    """Whether a name is an implementation ("sensitivity", "torchattacks:PGD"), which takes norms and parameters."""
    return name in OWN or name.partition(":")[0] in LIBRARIES


def resolve(
    name: str, *, norms: Sequence[str] = (), params: Mapping[str, Any] | None = None, base: Path | None = None
) -> list[Card]:
    """Return the cards that a name stands for.

    Args:
        name: a shipped suite or card; the path of one, with or without ".toml"; a shorthand: "sensitivity", "one-step",
            "torchattacks:NAME", "foolbox:NAME", "python:FILE.py:fn" (these need a norm and take `params`); or "none"
            for no attack.
        norms: norms asked for. They select the cards of a suite, and are the norms of a shorthand.
        params: parameters of a shorthand.
        base: folder that relative paths are tried in first, before the current one.

    Raises:
        AttackError: nothing of that name, a shorthand without norm, parameters for a card or suite, or a file that is
            not valid.
        BudgetError: an unknown norm.
        MissingDependency: a shorthand whose library is not installed.
    """
    for norm in norms:
        check_norm(norm)
    if name == "none":
        return []
    if is_shorthand(name):
        return _shorthand(name, norms, dict(params or {}), base)
    if params:
        fix = "Write a card of your own, or name the implementation (torchattacks:PGD) together with --norm."
        raise AttackError(f"parameters for '{name}'", expected="none: its cards fix them", got=sorted(params), fix=fix)
    path = _find(name, base)
    if path is None:
        if ":" in name:
            raise unknown(f"library of attack '{name}'", name.partition(":")[0], LIBRARIES, AttackError)
        raise unknown("suite or attack", name, (*suite_names(), *card_names(), "none", *OWN), AttackError)
    is_card = "implementation" in read_toml(path, "suite or card", AttackError)
    return _of_norms([read_card(path)] if is_card else read_suite(path), norms, name)


def _find(name: str, base: Path | None) -> Path | None:
    """A shipped suite or card of that name, else a file; a file that has a shipped name is written with its path."""
    cards = shipped("attacks")
    places = [folder / f"{name}.toml" for folder in (cards / "suites", cards)] if Path(name).name == name else []
    for folder in (base or Path(), Path()):
        places += [folder / name, folder / f"{name}.toml"]
    return next((path for path in places if path.is_file()), None)


def read_suite(path: Path, *, seen: tuple[Path, ...] = ()) -> list[Card]:
    """Read a suite: TOML with `title`, `attacks` (names or paths of cards) and `suites` (names or paths of suites).

    Paths are relative to the suite; a card that comes twice is taken once. With `cascade` = true each attack is
    started, at each radius, only on the samples that the attacks of its norm before it left standing there (a
    minimal-norm attack: at the smallest radius).

    Raises:
        AttackError: not valid, no attacks at all, or it includes itself.
    """
    values = read_toml(path, "suite", AttackError)
    for key, value in values.items():
        if key not in _SUITE_KEYS:
            raise unknown("key of suite", key, _SUITE_KEYS, AttackError).inside(place(path, (key,)))
        if key == "cascade" and not isinstance(value, bool):
            raise AttackError(f"{place(path, (key,))}: {key}", expected="true or false", got=repr(value))
        if key in ("attacks", "suites") and not (
            isinstance(value, list) and all(isinstance(item, str) for item in value)
        ):
            raise AttackError(f"{place(path, (key,))}: {key}", expected="a list of names", got=repr(value))
    if path.resolve() in seen:
        raise AttackError(f"suite '{path}'", expected="suites that do not include themselves", got="a cycle")
    cards: list[Card] = []
    for number in range(len(values.get("suites", []))):
        found = _beside(path, values, ("suites", number), shipped("attacks") / "suites", "suite", suite_names())
        cards += read_suite(found, seen=(*seen, path.resolve()))
    for number in range(len(values.get("attacks", []))):
        found = _beside(path, values, ("attacks", number), shipped("attacks"), "attack card", card_names())
        cards.append(read_card(found))
    if not cards:
        raise AttackError(f"suite '{path}'", expected="at least one attack", got="none")
    if values.get("cascade"):
        cards = [card.model_copy(update={"cascade": True}) for card in cards]
    return distinct(cards)


def _beside(
    suite: Path, values: Mapping[str, Any], key: tuple[str, int], folder: Path, kind: str, names: Sequence[str]
) -> Path:
    name = values[key[0]][key[1]]
    for path in (suite.parent / name, suite.parent / f"{name}.toml", folder / f"{name}.toml"):
        if path.is_file():
            return path
    raise unknown(f"{kind} of suite", name, names, AttackError).inside(place(suite, key))


def distinct(cards: Sequence[Card]) -> list[Card]:
    """Return the cards without repetitions; different ones of one name become NAME, NAME#2, ..."""
    out: dict[str, Card] = {}
    for card in cards:
        name, number = card.name, 1
        while name in out and out[name].model_copy(update={"name": card.name}) != card:
            number += 1
            name = f"{card.name}#{number}"
        out[name] = card.model_copy(update={"name": name})
    return list(out.values())


def _of_norms(cards: list[Card], norms: Sequence[str], name: str) -> list[Card]:
    chosen = [card for card in cards if not norms or card.norm in norms]
    if not chosen:
        has = ", ".join(sorted({card.norm for card in cards}))
        raise AttackError(f"attacks of '{name}'", expected=f"a norm among {has}", got=", ".join(norms))
    return chosen


def _shorthand(name: str, norms: Sequence[str], params: dict[str, Any], base: Path | None) -> list[Card]:
    implementation = f"robustode:{name}" if name in OWN else name
    library, _, rest = implementation.partition(":")
    if not norms:
        fix = f"Add --norm, for example --norm linf; the norms are {', '.join(NORMS)}."
        raise AttackError(f"attack '{name}' given by its implementation", expected="a norm", got="none", fix=fix)
    stem = rest.rpartition(":")[2] if library == "python" else rest
    common = {
        "title": name,
        "implementation": implementation,
        "kind": "minimal" if _is_minimal(library, rest) else "budget",
        "params": params,
        "source": str((base or Path()).resolve()),
    }
    prefix = "" if library == "robustode" else f"{library}-"
    return [
        make_card({**common, "name": f"{prefix}{stem}-{norm}", "norm": norm}, f"attack '{name}'")
        for norm in dict.fromkeys(norms)
    ]


def _is_minimal(library: str, name: str) -> bool:
    if library == "torchattacks":
        return torchattacks_is_minimal(name)
    if library == "foolbox":
        return foolbox_is_minimal(name)
    return library == "robustode" and name == "sensitivity"
