"""Studies: a factorial of training methods, evaluated alike, with its primary outcome declared before the run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robustode.errors import ProtocolError, TrainingError, unknown
from robustode.evaluation.protocol import digest
from robustode.models.snode_config import SNODEConfig
from robustode.resources import read_toml, shipped
from robustode.toml_lines import place
from robustode.training.cost import Cost
from robustode.training.ncg import NCGConfig
from robustode.training.sgd import SGDConfig
from robustode.validation import validated

FACTORS: dict[str, tuple[str, ...]] = {
    "optimiser": ("ncg", "adam", "sgd"),
    "operator": ("l2", "sobolev"),
    "cost": ("squared", "ce"),
    "initialisation": ("spline", "independent"),
}
COSTS = {"squared": Cost(mu1=1.0, mu2=0.0), "ce": Cost(mu1=0.0, mu2=1.0)}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One cell of the factorial: levels of the factors and the optimiser that they give.

    Attributes:
        higher: whether it stops at the higher target of the data.
    """

    name: str
    levels: dict[str, str]
    optimiser: NCGConfig | SGDConfig
    higher: bool = False


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudyData(_Table):
    """One data set of a study.

    Attributes:
        name: as `load_data` takes it.
        train, validation: training images drawn and, apart from them, held out to stop by.
        seeds: replications, numbered from 0.
        target: validation accuracy at which every arm stops.
        higher_target: that of extra arms with `higher = true`.
    """

    name: str
    train: int = Field(ge=2)
    validation: int = Field(ge=1)
    seeds: int = Field(ge=1)
    target: float = Field(gt=0, le=1)
    higher_target: float | None = Field(default=None, gt=0, le=1)


class Evaluation(_Table):
    """What is measured on every trained model, on images of the test split that all arms share.

    Attributes:
        attacks: cards of minimal-norm attacks; the distance of a sample is the smallest that any of a norm found.
        samples: attacked test images.
        noise: standard deviations σ of Gaussian noise on the input, not clipped.
        noise_samples: test images for the accuracies under noise and on other grids.
        steps: numbers of Euler steps at which the weights are taken again.
        steps_attack, steps_samples: card and test images for the distances there.
    """

    attacks: tuple[str, ...]
    samples: int = Field(ge=1)
    noise: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = ()
    noise_samples: int = Field(default=2000, ge=1)
    steps: tuple[int, ...] = ()
    steps_attack: str = "sensitivity-l2"
    steps_samples: int = Field(default=100, ge=1)


class Primary(_Table):
    """The primary outcome: the difference arm − against, over seeds."""

    outcome: Literal["median minimal L2 distance", "median minimal L∞ distance"]
    data: str
    arm: str
    against: str


class Study(_Table):
    """A factorial of training methods; `arms` are its cells in order, then the extra ones.

    Attributes:
        title: one line.
        primary: declared before the run.
        network: configuration of the sNODE without input shape and classes; `knots` equal to `steps` with Euler, so
            that the independent initialisation is that of the layered twin.
        data: data sets.
        evaluation: what is measured.
        checks: how often an epoch the target is asked.
        factors: levels in use, a part of `FACTORS`.
        settings: optimiser options; each table holds levels that an arm must have, and options for it. Later ones win.
        extra: further arms: `name`, one level of every factor, options, and `higher`.
    """

    kind: str
    title: str
    primary: Primary
    network: dict[str, Any]
    data: tuple[StudyData, ...] = Field(min_length=1)
    evaluation: Evaluation
    checks: int = Field(default=4, ge=1)
    factors: dict[str, tuple[str, ...]]
    settings: tuple[dict[str, Any], ...] = ()
    extra: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Study:
        if self.kind != "study":
            raise ValueError(f"kind: expected 'study', got '{self.kind}'")
        for factor, levels in FACTORS.items():
            for level in self.factors.get(factor, ()):
                if level not in levels:
                    raise ValueError(str(unknown(f"level of {factor}", level, levels, ProtocolError)))
        if set(self.factors) != set(FACTORS):
            raise ValueError(f"factors: expected {', '.join(FACTORS)}, got {', '.join(self.factors) or 'none'}")
        try:
            names = [arm.name for arm in self.arms]
        except TrainingError as error:
            raise ValueError(f"settings: {error}") from None
        _check_names("arms", names)
        _check_names("data", [Path(plan.name).stem for plan in self.data])
        if any(arm.higher for arm in self.arms) and any(plan.higher_target is None for plan in self.data):
            raise ValueError("data: expected a higher_target in every table, as an arm is higher")
        for name in (self.primary.arm, self.primary.against):
            if name not in names:
                raise ValueError(str(unknown("arm of the primary outcome", name, names, ProtocolError)))
        if self.primary.data not in [data.name for data in self.data]:
            raise ValueError(f"primary.data: expected one of the study's data, got '{self.primary.data}'")
        SNODEConfig(input_shape=(14, 14), classes=10, **{"knots": self.network.get("steps", 30), **self.network})
        return self

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every cell of the factorial, then the extra arms."""
        cells = itertools.product(*(self.factors[factor] for factor in FACTORS))
        found = [self._arm("-".join(levels), dict(zip(FACTORS, levels, strict=True)), {}) for levels in cells]
        for table in self.extra:
            levels = {factor: table.get(factor, "") for factor in FACTORS}
            options = {key: value for key, value in table.items() if key not in (*FACTORS, "name", "higher")}
            arm = self._arm(table.get("name", ""), levels, options)
            if not isinstance(higher := table.get("higher", False), bool):
                raise TrainingError(f"arm '{arm.name}'", expected="higher = true or false", got=repr(higher))
            found.append(replace(arm, higher=higher))
        return tuple(found)

    def _arm(self, name: str, levels: dict[str, str], own: Mapping[str, Any]) -> Arm:
        options: dict[str, Any] = {}
        for table in self.settings:
            if all(levels[factor] == table[factor] for factor in FACTORS if factor in table):
                options |= {key: value for key, value in table.items() if key not in FACTORS}
        for factor, level in levels.items():
            if level not in FACTORS[factor]:
                raise unknown(f"level of {factor} in arm '{name}'", level, FACTORS[factor], TrainingError)
        base: NCGConfig | SGDConfig = NCGConfig() if levels["optimiser"] == "ncg" else SGDConfig()
        if levels["optimiser"] != "ncg":
            base = base.replace(method=levels["optimiser"])
        optimiser = base.replace(cost=COSTS[levels["cost"]], **{**options, **own})
        return Arm(name=name, levels=levels, optimiser=optimiser)

    @property
    def hash(self) -> str:
        """Digest of the study without its title."""
        return digest(self.model_dump(mode="json", exclude={"title"}))


def is_study(name: str) -> bool:
    """Return whether a protocol, by name or path, is a study."""
    path = _path(name)
    return path is not None and read_toml(path, "protocol", ProtocolError).get("kind") == "study"


def read_study(name: str) -> Study:
    """Read a study by name (of `evaluations/`) or path.

    Raises:
        ProtocolError: there is none, the TOML is broken (with its line), or its content does not fit.
    """
    path = _path(name)
    if path is None:
        raise ProtocolError(f"study '{name}'", expected="a file, or a name of evaluations/", got="neither")
    values = read_toml(path, "protocol", ProtocolError)
    _check_keys(values, path)
    return validated(Study, values, what="study", path=path, error=ProtocolError)


def _check_keys(values: dict[str, Any], path: Path) -> None:
    """Name the nearest known key or level for one that is unknown; the model says what is missing or ill-typed."""
    network = [key for key in SNODEConfig.model_fields if key not in ("input_shape", "classes", "bounds")]
    known = {"primary": Primary.model_fields, "network": network, "data": StudyData.model_fields}
    known |= {"evaluation": Evaluation.model_fields, "": Study.model_fields}
    for name, names in known.items():
        found = values.get(name, {}) if name else values
        for number, table in enumerate(found if isinstance(found, list) else [found]):
            inner = ((name, number) if isinstance(found, list) else (name,)) if name else ()
            for key in table if isinstance(table, dict) else ():
                if key not in names:
                    wrong = unknown(f"key of {name or 'protocol'}", key, names, ProtocolError)
                    raise wrong.inside(place(path, (*inner, key)))
    for name in ("data", "settings", "extra"):
        tables = values.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            what = f"{place(path, (name,))}: {name}"
            raise ProtocolError(what, expected=f"tables, each under [[{name}]]", got=f"[{name}]")
    for number, table in enumerate(values.get("settings", [])):
        for factor, levels in FACTORS.items():
            if factor in table and table[factor] not in levels:
                wrong = unknown(f"level of {factor} in settings", str(table[factor]), levels, ProtocolError)
                raise wrong.inside(place(path, ("settings", number, factor)))


def _check_names(what: str, names: list[str]) -> None:
    """Raise `ValueError` unless all names can be folders and no two are the same."""
    for name in names:
        if not re.fullmatch(r"[\w.+-]+", name):
            raise ValueError(f"{what}: expected a name of letters, digits and - _ + ., got '{name}'")
        if names.count(name) > 1:
            raise ValueError(f"{what}: expected different names, got '{name}' {names.count(name)} times")


def _path(name: str) -> Path | None:
    candidates = (Path(name), shipped("evaluations") / f"{name}.toml")
    return next((path for path in candidates if path.is_file()), None)
