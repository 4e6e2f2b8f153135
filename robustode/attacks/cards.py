"""Attack cards: one TOML file for each attack, with its implementation, every parameter, its norm and its paper."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustode.attacks.adapters.foolbox import build_foolbox
from robustode.attacks.adapters.foolbox import is_minimal as foolbox_is_minimal
from robustode.attacks.adapters.python import build_python
from robustode.attacks.adapters.torchattacks import build_torchattacks
from robustode.attacks.adapters.torchattacks import is_minimal as torchattacks_is_minimal
from robustode.attacks.base import Attack
from robustode.attacks.direction import OneStepAttack
from robustode.attacks.norms import NORMS, Norm
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.errors import AttackError, unknown
from robustode.resources import read_toml, shipped

OWN: dict[str, Callable[..., Attack]] = {"sensitivity": SensitivityAttack, "one-step": OneStepAttack}
LIBRARIES = ("robustode", "torchattacks", "foolbox", "python")


class Card(BaseModel):
    """One attack as the tables name it.

    Attributes:
        name: file stem, or the shorthand it was asked for by.
        implementation: "robustode:sensitivity", "torchattacks:PGD", "foolbox:L2DeepFoolAttack", "python:FILE.py:fn".
        norm: norm of the ball or of the distance.
        kind: "minimal" (one run, minimal norm) or "budget" (one run for each ε).
        params: parameters of the implementation; lengths in raw-input units.
        per_eps: parameters that are this number times ε (a step size, say).
        seeded: whether its draws follow the run's seed; every attack here is reproducible.
        paper: where it was published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    implementation: str
    norm: Norm
    kind: Literal["minimal", "budget"]
    params: dict[str, Any] = Field(default_factory=dict)
    per_eps: dict[str, float] = Field(default_factory=dict)
    paper: str = ""
    source: str = Field(default="", description="folder that a python: file is relative to")

    @property
    def library(self) -> str:
        """The part of the implementation before the colon."""
        return self.implementation.partition(":")[0]

    def params_at(self, eps: float | None) -> dict[str, Any]:
        """Return the parameters as they are at radius ε."""
        scaled = {key: factor * eps for key, factor in self.per_eps.items()} if eps is not None else {}
        return {**self.params, **scaled}

    def build(self, eps: float | None) -> Attack:
        """Return the attack at radius ε (None for a minimal-norm one).

        Raises:
            AttackError: unknown implementation, or parameters that it does not take.
            MissingDependency: its library is not installed.
        """
        library, _, name = self.implementation.partition(":")
        radius = None if self.kind == "minimal" else eps
        params = self.params_at(radius)
        if library == "robustode":
            return self._own(name, radius, params)
        minimal = self.kind == "minimal"
        if library == "torchattacks":
            return build_torchattacks(name, norm=self.norm, eps=radius, params=params, minimal=minimal)
        if library == "foolbox":
            return build_foolbox(name, norm=self.norm, eps=radius, params=params, minimal=minimal)
        base = Path(self.source) if self.source else None
        spec = self.implementation
        return build_python(spec, norm=self.norm, eps=radius, params=params, minimal=minimal, base=base)

    def _own(self, name: str, eps: float | None, params: Mapping[str, Any]) -> Attack:
        if name not in OWN:
            raise unknown("RobustODE attack", name, OWN, AttackError)
        known = {"sensitivity": ("setting", "damping", "kappa", "step", "steps"), "one-step": ("kind",)}[name]
        for key in params:
            if key not in known:
                raise unknown(f"parameter of robustode:{name}", key, known, AttackError)
        return OWN[name](norm=self.norm, eps=eps, **params)

    def resolved(self) -> dict[str, Any]:
        """Return what defines the attack, for the protocol's hash: every parameter, and a hash of the user's code."""
        out = self.model_dump(mode="json", exclude={"source"})
        if self.library == "python":
            file = Path(self.source or ".") / self.implementation.split(":")[1]
            out["code"] = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""
        return out


def card_names() -> tuple[str, ...]:
    """Names of the shipped cards."""
    return tuple(sorted(path.stem for path in shipped("attacks").glob("*.toml")))


def suite_names() -> tuple[str, ...]:
    """Names of the shipped suites."""
    return tuple(sorted(path.stem for path in (shipped("attacks") / "suites").glob("*.toml")))


def read_card(path: Path) -> Card:
    """Read one card.

    Raises:
        AttackError: the file is missing or not TOML, a key is unknown or missing, or a value is not allowed.
    """
    values = read_toml(path, "attack card", AttackError)
    values = {"name": path.stem, "source": str(path.parent.resolve()), **values}
    return _card(values, f"attack card '{path}'")


def _card(values: dict[str, Any], what: str) -> Card:
    library = str(values.get("implementation", "")).partition(":")[0]
    if library not in LIBRARIES:
        raise unknown(f"library of {what}", library, LIBRARIES, AttackError)
    if library != "python":
        values["source"] = ""
    try:
        card = Card.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        fix = "Compare it with a shipped card in attacks/."
        raise AttackError(f"{what} is not valid: {problems}", fix=fix) from None
    return card


def read_suite(path: Path, *, seen: tuple[Path, ...] = ()) -> list[Card]:
    """Read a suite: TOML with `title`, `attacks` (names or paths of cards) and `suites` (names or paths of suites)."""
    values = read_toml(path, "suite", AttackError)
    extra = sorted(set(values) - {"title", "attacks", "suites"})
    if extra:
        raise unknown(f"key in suite '{path}'", extra[0], ("title", "attacks", "suites"), AttackError)
    if path.resolve() in seen:
        raise AttackError(f"suite '{path}'", expected="suites that do not include themselves", got="a cycle")
    cards: list[Card] = []
    for name in values.get("suites", []):
        cards += read_suite(_find_suite(str(name), path.parent), seen=(*seen, path.resolve()))
    cards += [read_card(_find_card(str(name), path.parent)) for name in values.get("attacks", [])]
    return list({card.name: card for card in cards}.values())


def _candidates(name: str, base: Path, folder: Path) -> list[Path]:
    return [base / name, base / f"{name}.toml", folder / f"{name}.toml", Path(name)]


def _find_card(name: str, base: Path) -> Path:
    for path in _candidates(name, base, shipped("attacks")):
        if path.is_file():
            return path
    raise unknown("attack card", name, card_names(), AttackError)


def _find_suite(name: str, base: Path) -> Path:
    for path in _candidates(name, base, shipped("attacks") / "suites"):
        if path.is_file():
            return path
    raise unknown("suite", name, suite_names(), AttackError)


def resolve(
    name: str, *, norms: Sequence[str] = (), params: Mapping[str, Any] | None = None, base: Path | None = None
) -> list[Card]:
    """Return the cards that a name stands for.

    Args:
        name: a suite or a card, by name or path; or a shorthand: "sensitivity", "one-step", "torchattacks:NAME",
            "foolbox:NAME", "python:FILE.py:fn" (these need a norm and take `params`); "none" for no attack.
        norms: norms asked for. They select the cards of a suite, and are the norms of a shorthand.
        params: parameters of a shorthand.
        base: folder that relative paths are tried in first.

    Raises:
        AttackError: nothing of that name, a shorthand without norm, or parameters for a card or suite.
    """
    if name == "none":
        return []
    library = name.partition(":")[0]
    if name in OWN or (":" in name and library in LIBRARIES):
        return _shorthand(name, norms, dict(params or {}), base)
    if params:
        fix = "Write a card of your own, or name the implementation (torchattacks:PGD) together with --norm."
        raise AttackError(f"parameters for '{name}'", expected="none: its cards fix them", got=sorted(params), fix=fix)
    where = base or Path()
    for path in _candidates(name, where, shipped("attacks") / "suites"):
        if path.is_file():
            values = read_toml(path, "suite or card", AttackError)
            cards = [read_card(path)] if "implementation" in values else read_suite(path)
            return _of_norms(cards, norms, name)
    if (shipped("attacks") / f"{name}.toml").is_file():
        return _of_norms([read_card(shipped("attacks") / f"{name}.toml")], norms, name)
    names = (*suite_names(), *card_names(), "none", *OWN)
    raise unknown("suite or attack", name, names, AttackError)


def _of_norms(cards: list[Card], norms: Sequence[str], name: str) -> list[Card]:
    chosen = [card for card in cards if not norms or card.norm in norms]
    if not chosen:
        has = sorted({card.norm for card in cards})
        raise AttackError(f"attacks of '{name}'", expected=f"a norm among {', '.join(has)}", got=", ".join(norms))
    return chosen


def _shorthand(name: str, norms: Sequence[str], params: dict[str, Any], base: Path | None) -> list[Card]:
    implementation = f"robustode:{name}" if name in OWN else name
    if not norms:
        fix = f"Add --norm, for example --norm linf; the norms are {', '.join(NORMS)}."
        raise AttackError(f"attack '{name}' given by its implementation", expected="a norm", got="none", fix=fix)
    library, _, rest = implementation.partition(":")
    if library == "torchattacks":
        minimal = torchattacks_is_minimal(rest)
    elif library == "foolbox":
        minimal = foolbox_is_minimal(rest)
    else:
        minimal = implementation == "robustode:sensitivity"
    stem = rest.rpartition(":")[2] if library == "python" else rest
    return [
        _card(
            {
                "name": f"{stem}-{norm}" if library == "robustode" else f"{library}-{stem}-{norm}",
                "title": name,
                "implementation": implementation,
                "norm": norm,
                "kind": "minimal" if minimal else "budget",
                "params": params,
                "source": str((base or Path()).resolve()),
            },
            f"attack '{name}'",
        )
        for norm in norms
    ]
