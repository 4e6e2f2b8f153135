"""One attack card: implementation, every parameter, norm and paper, as one TOML file."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

from robustode.attacks.adapters.foolbox import build_foolbox
from robustode.attacks.adapters.python import build_python
from robustode.attacks.adapters.signature import check_parameters
from robustode.attacks.adapters.torchattacks import build_torchattacks
from robustode.attacks.base import Attack
from robustode.attacks.direction import OneStepAttack
from robustode.attacks.needs import Needs
from robustode.attacks.norms import Norm
from robustode.attacks.random_search import RandomSearch
from robustode.attacks.restarts import Restarts
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.errors import AttackError, unknown
from robustode.resources import read_toml
from robustode.toml_lines import place
from robustode.validation import validated

OWN: dict[str, Callable[..., Attack]] = {
    "sensitivity": SensitivityAttack,
    "one-step": OneStepAttack,
    "random-search": RandomSearch,
}
LIBRARIES = ("robustode", "torchattacks", "foolbox", "python")
PROBE = 0.1  # a radius to build a budget attack with when only its parameters are checked
_RESERVED = {"norm": "The card's norm sets it.", "eps": "The budget sets it: give eps, in raw-input units."}

# Keys that are younger than the hashes of protocols, and their values in a card that does not have them.
_LATER: dict[str, Any] = {"restarts": 1, "needs": {}, "cascade": False}
_NOT_IN_A_CARD = {"source": "", "cascade": "It is a key of the suite."}


class Card(BaseModel):
    """One attack as the tables name it.

    Attributes:
        name: file stem, or made from the shorthand it was asked for by.
        title: what it is, in words.
        implementation: "robustode:sensitivity", "torchattacks:PGD", "foolbox:L2DeepFoolAttack", "python:FILE.py:fn".
        norm: norm of the ball or of the distance.
        kind: "minimal" (one run, minimal norm) or "budget" (one run for each ε).
        params: parameters of the implementation, finite JSON values; lengths in raw-input units.
        per_eps: parameters of a budget attack that are this number times ε (a step size, say).
        restarts: runs of a budget attack with other draws, each on what the runs before left standing.
        needs: the models that it is for.
        cascade: whether it is started only on what the attacks before it left standing; its suite says so.
        paper: where it was published.
        source: folder that a python: file is relative to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    title: str
    implementation: str
    norm: Norm
    kind: Literal["minimal", "budget"]
    params: dict[str, Any] = Field(default_factory=dict)
    per_eps: dict[str, FiniteFloat] = Field(default_factory=dict)
    restarts: int = Field(default=1, ge=1, strict=True)
    needs: Needs = Needs()
    cascade: bool = False
    paper: str = ""
    source: str = ""

    @field_validator("implementation")
    @classmethod
    def _known_library(cls, value: str) -> str:
        if (library := value.partition(":")[0]) not in LIBRARIES:
            raise ValueError(str(unknown("library", library, LIBRARIES)))
        return value

    @field_validator("params")
    @classmethod
    def _finite_json(cls, params: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(params, allow_nan=False)
        except (TypeError, ValueError) as reason:
            raise ValueError(f"expected finite numbers, texts, true or false, and lists of them; {reason}") from None
        return params

    @model_validator(mode="after")
    def _scaled(self) -> Self:
        if self.per_eps and self.kind == "minimal":
            raise ValueError("per_eps: expected none, a minimal-norm attack has no ε")
        if self.restarts > 1 and self.kind == "minimal":
            raise ValueError(f"restarts: expected 1 for a minimal-norm attack, got {self.restarts}")
        if twice := sorted(set(self.params) & set(self.per_eps)):
            raise ValueError(f"per_eps: expected parameters that params does not set, got {', '.join(twice)} in both")
        return self

    @property
    def provider(self) -> str:
        """The part of the implementation before the colon."""
        return self.implementation.partition(":")[0]

    def params_at(self, eps: float | None) -> dict[str, Any]:
        """Return the parameters as they are at radius ε."""
        scaled = {} if eps is None else {key: factor * eps for key, factor in self.per_eps.items()}
        return {**self.params, **scaled}

    def build(self, eps: float | None) -> Attack:
        """Return the attack at radius ε (None for a minimal-norm one).

        Raises:
            AttackError: unknown implementation, or parameters that it does not take.
            MissingDependency: its library is not installed.
        """
        attack = self._build_once(eps)
        return Restarts(attack=attack, restarts=self.restarts) if self.restarts > 1 else attack

    def _build_once(self, eps: float | None) -> Attack:
        name = self.implementation.partition(":")[2]
        minimal = self.kind == "minimal"
        radius = None if minimal else eps
        params = self.params_at(radius)
        if self.provider == "robustode":
            return _build_own(name, self.norm, radius, params)
        if self.provider == "torchattacks":
            return build_torchattacks(name, norm=self.norm, eps=radius, params=params, minimal=minimal)
        if self.provider == "foolbox":
            return build_foolbox(name, norm=self.norm, eps=radius, params=params, minimal=minimal)
        base, spec = Path(self.source), self.implementation
        return build_python(spec, norm=self.norm, eps=radius, params=params, minimal=minimal, base=base)

    def check(self) -> None:
        """Raise what `build` raises, without a radius being known yet."""
        self.build(PROBE if self.kind == "budget" else None)

    def resolved(self) -> dict[str, Any]:
        """Return what defines the attack, JSON-able: every parameter, and a hash of the user's own code."""
        out = self.model_dump(mode="json", exclude={"source"})
        out["needs"] = self.needs.model_dump(mode="json", exclude_defaults=True)
        out = {key: value for key, value in out.items() if key not in _LATER or value != _LATER[key]}
        if self.provider == "python":
            out["code"] = _code_hash(self.implementation.removeprefix("python:").rpartition(":")[0], Path(self.source))
        return out


def _build_own(name: str, norm: str, eps: float | None, params: Mapping[str, Any]) -> Attack:
    if name not in OWN:
        raise unknown("RobustODE attack", name, OWN, AttackError)
    check_parameters(OWN[name], params, what=f"robustode:{name}", reserved=_RESERVED)
    return OWN[name](norm=norm, eps=eps, **params)


def _code_hash(place: str, base: Path) -> str:
    """Return 16 digits of the SHA-256 of the file a python: attack is in; "" where there is no single file."""
    if place.endswith(".py"):
        file = base / Path(place).expanduser()
    else:
        spec = importlib.util.find_spec(place)
        file = Path(spec.origin) if spec is not None and spec.origin else Path()
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""


def read_card(path: Path) -> Card:
    """Read one card.

    Raises:
        AttackError: the file is missing or not TOML, a key is unknown or missing, or a value is not allowed.
    """
    values = read_toml(path, "attack card", AttackError)
    for key in values:
        if key in _NOT_IN_A_CARD:
            raise AttackError(f"{place(path, (key,))}: key '{key}'", expected="none", fix=_NOT_IN_A_CARD[key])
    values = {"name": path.stem, "source": str(path.parent.resolve()), **values}
    return make_card(values, "attack card", path)


def make_card(values: dict[str, Any], what: str, path: Path | None = None) -> Card:
    """Validate a card; `what`, or the file that it is from, names it in messages.

    Raises:
        AttackError: an unknown key or library (the nearest name is suggested), or values that do not fit.
    """
    library = str(values.get("implementation", "")).partition(":")[0]
    if library != "python":
        values = {**values, "source": ""}
    hidden, tables = tuple(_NOT_IN_A_CARD), {"needs": Needs}
    return validated(Card, values, what=what, path=path, error=AttackError, hidden=hidden, tables=tables)
