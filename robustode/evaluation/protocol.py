"""Protocols: which models, data, attacks and budgets are evaluated; read from TOML or made from flags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import nn

from robustode.attacks.norms import check_norm
from robustode.errors import OptionError, ProtocolError, unknown
from robustode.evaluation.budgets import parse_radii
from robustode.resources import read_toml, shipped

HASH_DIGITS = 16


class ModelEntry(BaseModel):
    """One model of a protocol: where it is and, for a user's own module, how it is to be used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    label: str | None = None
    arch: str | None = None
    bounds: tuple[float, float] | None = None
    classes: int | None = None
    input_shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    normalise: str | None = None
    output: str | None = None

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of `load_model` that this entry gives."""
        return {key: value for key, value in self.model_dump(exclude={"model", "label"}).items() if value is not None}


class Protocol(BaseModel):
    """A whole evaluation. `robustode eval` builds one from its flags; `robustode run` reads one from a file.

    Attributes:
        models: entries, or bare model names.
        data: data source; None takes the one that all checkpoints name.
        limit: n for a class-stratified random subset, "first:n", or None for the whole split.
        attacks: suite or card, by name or path.
        also: further cards, or directories of stored adversarial data sets.
        norms: norms asked for; empty for those of the cards.
        params: parameters of a shorthand such as "torchattacks:PGD".
        budgets: {norm: radii}; norms left out have the default budgets of the data.
        seed: seed of every random draw, 0 to 2⁶³ − 1; subsets are drawn with it too.
        shard: samples in a unit of work.
        eot: draws averaged for a model that answers differently on repeats.
        allow_low_accuracy: go on although the clean accuracy is suspicious.
        store: keep the best adversarial of every sample.
        base: folder of the protocol's file, in which the files that it names are looked for first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    models: tuple[ModelEntry, ...] = Field(min_length=1)
    data: str | None = None
    split: str = "test"
    limit: int | str | None = None
    attacks: str = "standard"
    also: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    params: dict[str, Any] = Field(default_factory=dict)
    budgets: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0, lt=2**63)
    shard: int = Field(default=500, ge=1)
    eot: int | None = Field(default=None, ge=1)
    allow_low_accuracy: bool = False
    store: bool = True
    base: str = ""

    @field_validator("models", mode="before")
    @classmethod
    def _entries(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        for entry in value:
            for key in entry if isinstance(entry, Mapping) else ():
                if key not in ModelEntry.model_fields:
                    raise ValueError(str(unknown("key of a model", str(key), ModelEntry.model_fields, ProtocolError)))
        return [{"model": entry} if isinstance(entry, str) else entry for entry in value]

    @field_validator("budgets", mode="before")
    @classmethod
    def _radii(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {check_norm(str(norm)): parse_radii(radii) for norm, radii in value.items()}

    def near(self, name: str) -> str:
        """Return the path of a file or folder that lies beside the protocol, else the name as it is."""
        beside = Path(self.base) / name
        return str(beside) if self.base and beside.exists() else name


def build_protocol(values: Mapping[str, Any], what: str = "protocol") -> Protocol:
    """Validate a protocol.

    Raises:
        ProtocolError: with every key that is unknown (nearest name suggested) and every value that does not fit.
    """
    for key in values:
        if key not in Protocol.model_fields:
            raise unknown(f"key of {what}", key, set(Protocol.model_fields) - {"base"}, ProtocolError)
    try:
        return Protocol.model_validate(dict(values))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ProtocolError(f"{what} is not valid: {problems}") from None


def protocol_of(
    model: Any, data: Any, *, attacks: str, eps: Mapping[str, Sequence[float]] | None, **options: Any
) -> tuple[Protocol, list[nn.Module | None], Any]:
    """Return the protocol for models and data that may be objects, the module objects, and the data if an object.

    Args:
        model: a model as `load_model` takes it, or several.
        data: a data source as `load_data` takes it, or its result; None takes the one that the checkpoints record.
        attacks: suite or card.
        eps: {norm: radii}.
        options: further fields of `Protocol`.

    Raises:
        OptionError, ProtocolError: no model, or a field that does not fit.
    """
    several = [model] if isinstance(model, str | Path | nn.Module) else list(model)
    if not several:
        raise OptionError("model", expected="at least one model", got="none")
    named = isinstance(data, str | Path)
    values = {
        "models": [type(one).__name__ if isinstance(one, nn.Module) else str(one) for one in several],
        "attacks": attacks,
        "budgets": dict(eps or {}),
        "data": str(data) if named else None,
        **options,
    }
    modules = [one if isinstance(one, nn.Module) else None for one in several]
    return build_protocol(values, "evaluation"), modules, None if named else data


def protocol_names() -> tuple[str, ...]:
    """Names of the shipped protocols."""
    return tuple(sorted(path.stem for path in shipped("evaluations").glob("*.toml")))


def read_protocol(name: str) -> Protocol:
    """Read a protocol by name (of `evaluations/`) or path.

    Raises:
        ProtocolError: there is none, the TOML is broken (with its line), or its content does not fit.
    """
    for path in (Path(name), shipped("evaluations") / f"{name}.toml"):
        if path.is_file():
            values = read_toml(path, "protocol", ProtocolError)
            return build_protocol({**values, "base": str(path.parent.resolve())}, f"protocol '{path}'")
    raise unknown("protocol", name, protocol_names(), ProtocolError)


def digest(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
