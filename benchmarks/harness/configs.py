"""The attacks of a benchmark and their grids, from one TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustode.attacks.card import Card, make_card

HERE = Path(__file__).resolve().parent.parent  # python: files of the TOML are relative to it
_KEYS = frozenset(("name", "norms", "implementation", "params", "grid", "per_eps", "kind", "images", "note"))


@dataclass(frozen=True, kw_only=True)
class Config:
    """One attack with all its parameters.

    Attributes:
        peer: name of the attack, the same for its whole grid.
        card: what the harness runs; its name is that of this configuration.
        ours: whether it is an attack of RobustODE.
        default: whether these are the library's defaults.
        images: run on so many report images only, and on no development images; None for all.
        note: for the tables.
    """

    peer: str
    card: Card
    ours: bool
    default: bool
    images: int | None = None
    note: str = ""

    @property
    def name(self) -> str:
        return self.card.name


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All attacks of a benchmark.

    Attributes:
        configs: ours first, then peer by peer, its default first, in the order of the file.
        passes: forward-equivalents for each sample (a backward row is one) up to which a grid point may be chosen.
    """

    configs: tuple[Config, ...]
    passes: float

    def of_norm(self, norm: str) -> list[Config]:
        """Return the configurations of a norm."""
        return [config for config in self.configs if config.card.norm == norm]


def read_plan(path: Path) -> Plan:
    """Read the TOML: `passes`, and tables [[ours]] and [[peer]] with the keys of `_KEYS`.

    `implementation` is one text or {norm: text}; `params` are those of the default and of every grid point, unless the
    point sets them; `grid` is a list of parameters, or {norm: list}.

    Raises:
        ValueError: an unknown or missing key.
        AttackError: a card that is not valid.
    """
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    if unknown := sorted(set(values) - {"passes", "ours", "peer"}):
        raise ValueError(f"{path}: expected passes, ours and peer, got {', '.join(unknown)}")
    configs = [
        config
        for kind in ("ours", "peer")
        for entry in values.get(kind, [])
        for norm in entry.get("norms", [])
        for config in _configs(entry, norm, kind == "ours", path)
    ]
    return Plan(configs=tuple(configs), passes=float(values.get("passes", float("inf"))))


def _configs(entry: Mapping[str, Any], norm: str, ours: bool, path: Path) -> list[Config]:
    if unknown := sorted(set(entry) - _KEYS):
        raise ValueError(f"{path}, attack {entry.get('name')}: unknown key {', '.join(unknown)}")
    implementation = "robustode:sensitivity" if ours else entry["implementation"]
    if isinstance(implementation, Mapping):
        implementation = implementation[norm]
    grid = entry.get("grid", [])
    points = [{}, *(grid.get(norm, []) if isinstance(grid, Mapping) else grid)]
    base = dict(entry.get("params", {}))
    out = []
    for point in points:
        words = " ".join(f"{key}={value}" for key, value in point.items())
        values = {
            "name": f"{entry['name']} {words}".strip(),
            "title": entry.get("note", ""),
            "implementation": implementation,
            "norm": norm,
            "kind": entry.get("kind", "minimal"),
            "params": {**base, **point},
            "per_eps": dict(entry.get("per_eps", {})),
            "source": str(HERE),
        }
        card = make_card(values, f"attack '{values['name']}' of {path}")
        rest = {"images": entry.get("images"), "note": entry.get("note", "")}
        out.append(Config(peer=entry["name"], card=card, ours=ours, default=not point, **rest))
    return out
