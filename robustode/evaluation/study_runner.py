"""Runs a study: units in order, each on disk before the next begins; then one table of units, one of distances."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from robustode.errors import OptionError, RunError
from robustode.evaluation.study import Study
from robustode.evaluation.study_unit import StudyUnit, check_study, matched, run_unit, units_of
from robustode.files import atomic, write_json
from robustode.versions import versions


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """What a study has produced so far.

    Attributes:
        study: its definition.
        units: one row for each finished unit: levels, seed, accuracies, smoothness, and columns `noise.σ` and
            `steps.N.accuracy`, `steps.N.agreement`, `steps.N.median_distance`.
        distances: one row for each unit and attacked test image: `data, arm, seed, sample, norm, distance, clean`; the
            distance is the smallest that any attack of the norm found, +inf if none did, 0 if misclassified.
    """

    study: Study
    units: pd.DataFrame
    distances: pd.DataFrame


KEYS = ("data", "arm", "seed", "validation_accuracy", "target", "noise", "steps")  # that every unit.json has

Listener = Callable[[str, int, int], None]


def run_study(
    study: Study,
    out: Path,
    *,
    resume: bool = False,
    seed: int | None = None,
    shard: tuple[int, int] = (0, 1),
    data_root: Path | None = None,
    command: str = "robustode.run_study",
    listen: Listener | None = None,
) -> StudyRun:
    """Run the units that are not finished yet, and return all that are.

    Args:
        study: what to run.
        out: folder of the study; must not exist unless `resume`.
        resume: keep finished units.
        seed: only the units of this seed, on every data set that has it.
        shard: (i, n): only every n-th unit of those, starting with the i-th from 0; several processes with the same n
            share the work in one folder (each with `resume`).
        data_root: folder of the real image sets.
        command: command line, for the headers of the checkpoints.
        listen: called with the name of a unit, how many are done and how many there are.

    Raises:
        RunError: the folder exists, or holds another study than the one resumed.
        OptionError: a seed that no data set of the study has.
    """
    most = max(plan.seeds for plan in study.data)
    if seed is not None and not 0 <= seed < most:
        raise OptionError("seed", expected=f"a seed of the study, 0 to {most - 1}", got=seed)
    if not 0 <= shard[0] < shard[1]:
        raise OptionError("shard", expected="(i, n) with 0 ≤ i < n", got=shard)
    check_study(study, data_root)
    _open(study, out, resume)
    asked = [unit for unit in units_of(study) if seed is None or unit.seed == seed]
    mine = asked[shard[0] :: shard[1]]
    for done, unit in enumerate(mine):
        if listen is not None:
            listen(unit.name, done, len(mine))
        folder = out / "units" / unit.name
        if not (folder / "unit.json").exists():
            run_unit(study, unit, folder, data_root=data_root, command=command)
    run = read_study_run(study, out)
    write_collected(run, out)
    return run


def _open(study: Study, out: Path, resume: bool) -> None:
    meta = out / "study.json"
    if meta.exists():
        was = _read(meta, "hash")["hash"]
        if not any((out / "units").glob("*/*/unit.json")):
            return _describe(study, meta)  # nothing was finished: the study may still be corrected
        if not resume:
            raise RunError(
                f"study folder '{out}'", expected="a new folder", got="an existing study", fix="Use --resume."
            )
        if was != study.hash:
            fix = "Choose another --out."
            raise RunError(f"study folder '{out}'", expected=f"study {study.hash}", got=f"study {was}", fix=fix)
        return
    if out.exists() and any(out.iterdir()):
        raise RunError(f"study folder '{out}'", expected="a new or empty folder", got="other files in it")
    _describe(study, meta)


def _describe(study: Study, meta: Path) -> None:
    values = {"hash": study.hash, "study": study.model_dump(mode="json"), "versions": versions(("robustode", "torch"))}
    write_json(values, meta)


def _read(path: Path, *keys: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise _damaged(path, reason) from None
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise _damaged(path, ValueError(f"no '{missing[0]}' in it"))
    return found


def _damaged(path: Path, reason: Exception) -> RunError:
    what = "Delete its folder and run the study with --resume." if path.name != "study.json" else None
    got = "no such file" if isinstance(reason, FileNotFoundError) else str(reason).splitlines()[0]
    return RunError(f"file '{path}' of a study", expected="what the study wrote", got=got, fix=what)


def open_study_run(out: Path) -> StudyRun:
    """Read a study and its finished units from its folder.

    Raises:
        RunError: the folder holds no study.
    """
    meta = out / "study.json"
    if not meta.exists():
        raise RunError(f"study folder '{out}'", expected="study.json", got="none")
    return read_study_run(Study.model_validate(_read(meta, "study")["study"]), out)


def read_study_run(study: Study, out: Path) -> StudyRun:
    """Read the finished units of a study from its folder."""
    rows, parts = [], []
    for unit in units_of(study):
        folder = out / "units" / unit.name
        if (folder / "unit.json").exists():
            rows.append(_flat(_read(folder / "unit.json", *KEYS)))
            try:
                parts.append(nearest(unit, pd.read_parquet(folder / "records.parquet")))
            except (OSError, ValueError) as reason:
                raise _damaged(folder / "records.parquet", reason) from None
    columns = ["data", "arm", "seed", "sample", "norm", "distance", "clean"]
    distances = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return StudyRun(study=study, units=pd.DataFrame(rows), distances=distances)


def nearest(unit: StudyUnit, records: pd.DataFrame) -> pd.DataFrame:
    """Return the smallest distance of every sample and norm."""
    marked = records.assign(clean=records["status"] != "misclassified")
    found = marked.groupby(["norm", "sample"], sort=True, as_index=False)
    out = pd.DataFrame(found.agg({"distance": "min", "clean": "first"}))
    out.insert(0, "seed", unit.seed)
    out.insert(0, "arm", unit.arm.name)
    out.insert(0, "data", unit.plan.name)
    return out


def write_collected(run: StudyRun, out: Path) -> None:
    """Write units.csv and distances.parquet (float32)."""
    with atomic(out / "units.csv") as temporary:
        run.units.to_csv(temporary, index=False)
    small = run.distances.astype({"distance": "float32", "sample": "int32", "seed": "int16"}, errors="ignore")
    small = small.astype({name: "category" for name in ("data", "arm", "norm") if name in small})
    with atomic(out / "distances.parquet") as temporary:
        small.to_parquet(temporary, index=False, compression="zstd")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a unit's row with its nested numbers as columns."""
    out = {key: value for key, value in row.items() if key not in ("noise", "steps", "versions")}
    out["matched"] = matched(row["validation_accuracy"], row["target"])
    for sigma, accuracy in row["noise"].items():
        out[f"noise.{sigma}"] = accuracy
    for steps, values in row["steps"].items():
        for name, value in values.items():
            out[f"steps.{steps}.{name}"] = math.nan if value is None else value
    return out
