"""Protocols: which models, data, attacks and budgets are evaluated; read from TOML or made from flags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)
from torch import nn

from robustode.attacks.norms import check_norm
from robustode.data.subset import parse_limit
from robustode.errors import OptionError, ProtocolError, RobustODEError, unknown
from robustode.evaluation.budgets import as_parts, distinct_radii, parse_radius
from robustode.evaluation.certified import CertifyEntry, SmoothingEntry
from robustode.evaluation.noise import NoiseEntry
from robustode.resources import read_toml, shipped
from robustode.toml_lines import line_of, place
from robustode.validation import as_value_error, validated

AUDITS = ("none", "cheap", "full")
PRECISIONS = ("full", "tf32", "bfloat16")
OUTPUTS = ("tables", "figures", "report", "adversarials")

Strict = Field(strict=True)
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NormName = Annotated[str, AfterValidator(as_value_error(check_norm))]
Radius = Annotated[float, BeforeValidator(as_value_error(lambda value: parse_radius(str(value))))]
Radii = Annotated[
    tuple[Radius, ...], BeforeValidator(as_value_error(as_parts)), AfterValidator(as_value_error(distinct_radii))
]


def _limit(value: Any) -> Any:
    limit = parse_limit(value)
    return value if limit is None or limit.first else limit.n


class ModelEntry(BaseModel):
    """One model of a protocol: where it is and, for a user's own module, how it is to be used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    label: str | None = None
    arch: str | None = None
    bounds: tuple[Number, Number] | None = None
    classes: Annotated[int, Strict, Field(ge=2)] | None = None
    input_shape: tuple[Annotated[int, Strict, Field(ge=1)], ...] | None = None
    mean: tuple[Number, ...] | None = None
    std: tuple[Number, ...] | None = None
    normalise: str | None = None
    output: str | None = None
    dtype: Literal["float32", "float64"] | None = None

    @field_validator("bounds")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"expected (lo, hi) with lo < hi, got {value}")
        return value

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of `load_model` that this entry gives."""
        return {key: value for key, value in self.model_dump(exclude={"model", "label"}).items() if value is not None}


class Protocol(BaseModel):
    """A whole evaluation. `robustode eval` builds one from its flags; `robustode run` reads one from a file.

    The hash that is stamped into every record is of what decides the numbers of the attacks: the samples themselves
    (data, split, limit), every parameter of every card, the budgets with defaults filled in, seed, shard, eot
    and a search_precision that is not "full" (`robustode.evaluation.plan`). Not part of it are the models, which have
    hashes of their own in the records, so that two models under one protocol show it; where they run, with
    cuda_graphs; uncertainty, certificates and smoothing, which are apart from the attacks;
    the audit with `transfer`, whose rows are apart (attack "audit-...") and may be made anew when the run has ended;
    and what is kept or said: outputs, title, allow_low_accuracy.

    Attributes:
        models: entries, or bare model names; empty for a protocol that is given its models (`run --model`).
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
        search_precision: what attacks may multiply in while they search, of models in float32: "full", "tf32" (on a
            GPU) or "bfloat16"; all else is in full float32.
        cuda_graphs: replay the sweeps of sNODEs as CUDA graphs while attacks search; needs a GPU.
        allow_low_accuracy: go on although the clean accuracy is suspicious.
        audit: checks of the numbers: "none", "cheap" for those that cost little, "full" for all.
        transfer: further models whose adversarials a full audit tries on these.
        uncertainty: noise of input and weights, propagated to P(correct) of every sample beside the attacks; or None.
        certificates: radii within which no input has another answer, for every sample beside the attacks; or None.
        smoothing: the same of the model that is smoothed by noise; or None.
        outputs: what is written beside records, timings and run.json, of "tables", "figures", "report" and
            "adversarials" (the best adversarial of every sample, which `robustode verify` scores again).
        base: folder of the protocol's file, in which the files that it names are looked for first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    models: tuple[ModelEntry, ...] = ()
    data: str | None = None
    split: str = "test"
    limit: Annotated[int | str | None, BeforeValidator(as_value_error(_limit))] = None
    attacks: str = "standard"
    also: tuple[str, ...] = ()
    norms: tuple[NormName, ...] = ()
    params: dict[str, Any] = Field(default_factory=dict)
    budgets: dict[NormName, Radii] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0, lt=2**63, strict=True)
    shard: int = Field(default=500, ge=1, strict=True)
    eot: Annotated[int, Strict, Field(ge=1)] | None = None
    search_precision: str = "full"
    cuda_graphs: bool = Field(default=False, strict=True)
    allow_low_accuracy: bool = Field(default=False, strict=True)
    audit: str = "cheap"
    transfer: tuple[str, ...] = ()
    uncertainty: NoiseEntry | None = None
    certificates: CertifyEntry | None = None
    smoothing: SmoothingEntry | None = None
    outputs: tuple[Literal["tables", "figures", "report", "adversarials"], ...] = OUTPUTS
    base: str = ""

    _file: Path | None = PrivateAttr(default=None)
    _overridden: frozenset[str] = PrivateAttr(default=frozenset())

    @field_validator("models", mode="before")
    @classmethod
    def _entries(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"model": entry} if isinstance(entry, str) else entry for entry in value]

    @field_validator("audit", "search_precision")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        choices = AUDITS if info.field_name == "audit" else PRECISIONS
        if value not in choices:
            raise ValueError(str(unknown("value", value, choices)).removeprefix("unknown value: "))
        return value

    @field_validator("outputs")
    @classmethod
    def _in_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in OUTPUTS if name in value)

    @field_validator("transfer")
    @classmethod
    def _of_the_full_audit(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and (audit := info.data.get("audit", "full")) != "full":
            raise ValueError(f'expected none, as audit "{audit}" does not try other models; say audit "full"')
        return value

    def near(self, name: str) -> str:
        """Return the path of a file or folder that lies beside the protocol, else the name as it is."""
        beside = Path(self.base) / name
        return str(beside) if self.base and beside.exists() else name

    def changed(self, what: str, **values: Any) -> Protocol:
        """Return the protocol with these values in place of its own; `what` names it in messages."""
        out = build_protocol({**self.model_dump(), **values}, what)
        out._file, out._overridden = self._file, self._overridden | set(values)
        return out

    @contextmanager
    def blaming(self, *key: str | int) -> Iterator[None]:
        """Put file and line of a key before the message of an error that is raised inside, if the file has the key."""
        try:
            yield
        except RobustODEError as error:
            if self._file is None or key[0] in self._overridden or line_of(self._file, key) is None:
                raise
            raise error.inside(place(self._file, key)) from None


def build_protocol(values: Mapping[str, Any], what: str = "protocol", *, path: Path | None = None) -> Protocol:
    """Validate a protocol, of a file if `path` is given.

    Raises:
        ProtocolError: with every key that is unknown (nearest name suggested) and every value that does not fit, and
            the lines of the file.
    """
    hidden = ("base",)
    tables = {
        "models": ModelEntry,
        "uncertainty": NoiseEntry,
        "certificates": CertifyEntry,
        "smoothing": SmoothingEntry,
    }
    return validated(Protocol, values, what=what, path=path, error=ProtocolError, tables=tables, hidden=hidden)


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
            if "base" in values:
                wrong = unknown("key of protocol", "base", set(Protocol.model_fields) - {"base"}, ProtocolError)
                raise wrong.inside(place(path, ("base",)))
            protocol = build_protocol({**values, "base": str(path.parent.resolve())}, path=path)
            protocol._file = path
            return protocol
    raise unknown("protocol", name, protocol_names(), ProtocolError)


def digest(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
