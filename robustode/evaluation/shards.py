"""Units on disk: records, timings and the points of each, whole or not there; joined when a run ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustode.evaluation import records as records_file
from robustode.evaluation.engine import Unit
from robustode.evaluation.protocol import digest
from robustode.files import atomic

KEY = "robustode"  # of the header of a file of points


def safe(name: str) -> str:
    """Return a label as a file name; different labels never become the same one."""
    plain = re.sub(r"[^A-Za-z0-9._#-]", "_", name)
    return plain if plain == name and not name.startswith(".") else f"{plain.lstrip('.')}~{digest(name)[:8]}"


def place(out: Path, model: str, attack: str, number: int) -> Path:
    """Return the path, without suffix, of a unit's files."""
    return out / "shards" / safe(model) / f"{safe(attack)}-{number:05d}"


def is_done(path: Path) -> bool:
    """Whether the unit is finished: its records are written last."""
    return path.with_name(path.name + ".parquet").is_file()


def write(path: Path, unit: Unit, *, keep_points: bool) -> None:
    """Write a finished unit; its records come last, so that a unit with records is whole."""
    if keep_points:
        tensors = {"sample": unit.sample, "x_adv": unit.x_adv, "distance": unit.distance, "pred": unit.pred}
        save_tensors(tensors, path.with_name(path.name + ".safetensors"))
    with atomic(path.with_name(path.name + ".timings.parquet")) as temporary:
        unit.timings.to_parquet(temporary, index=False)
    records_file.write(unit.records, path.with_name(path.name + ".parquet"))


def save_tensors(tensors: dict[str, Tensor], path: Path, header: dict[str, Any] | None = None) -> None:
    """Write tensors as safetensors, atomically; the header is one JSON text, as several would be in random order."""
    metadata = None if header is None else {KEY: json.dumps(header, sort_keys=True)}
    with atomic(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata=metadata)


def read_header(path: Path) -> dict[str, Any]:
    """Return what `save_tensors` wrote as header; {} if it wrote none."""
    with safe_open(path, framework="pt") as handle:
        return json.loads((handle.metadata() or {}).get(KEY, "{}"))


def read_records(path: Path) -> pd.DataFrame:
    """Return the records of a finished unit."""
    return records_file.read(path.with_name(path.name + ".parquet"))


def read_timings(path: Path) -> pd.DataFrame:
    """Return the timings of a finished unit."""
    return pd.read_parquet(path.with_name(path.name + ".timings.parquet"))


def write_timings(parts: Sequence[pd.DataFrame], path: Path) -> None:
    """Join the timings of all units; the only file of a run that differs between repeats."""
    columns = ["model", "attack", "norm", "eps", "shard", "samples", "seconds"]
    kept = [part.reindex(columns=columns).astype({"eps": "Float64"}) for part in parts if len(part)]
    joined = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=columns)
    with atomic(path) as temporary:
        joined.to_parquet(temporary, index=False)


def nearest(units: Iterable[tuple[Path, bool]]) -> dict[str, Tensor] | None:
    """Return the nearest adversarial of every sample among some units of one model and norm, ordered by sample.

    Args:
        units: place of each, and whether its attack had no ball; of equal distances the first unit's counts.

    Returns:
        What `write` keeps, and `minimal` (points,) bool: found without a ball; None if no unit kept points.
    """
    parts = []
    for unit, minimal in units:
        if (file := unit.with_name(unit.name + ".safetensors")).is_file():
            part = load_file(file)
            parts.append({**part, "minimal": torch.full((len(part["sample"]),), minimal)})
    if not parts:
        return None
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    order = torch.argsort(joined["distance"], stable=True)
    order = order[torch.argsort(joined["sample"][order], stable=True)]
    sample = joined["sample"][order]
    first = torch.ones(len(sample), dtype=torch.bool)
    first[1:] = sample[1:] != sample[:-1]
    return {name: value[order[first]] for name, value in joined.items()}
