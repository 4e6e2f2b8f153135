"""A finished run, as its directory holds it; reading checks that nothing was changed since it was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from robustode.errors import RunError
from robustode.evaluation import records as records_file
from robustode.evaluation.certificate_rows import read_certificates
from robustode.evaluation.depth import read_depth
from robustode.evaluation.noise_rows import read_noise
from robustode.evaluation.smoothed_rows import read_smoothed
from robustode.files import file_digest, read_json

__all__ = ["FINISHED", "SCHEMA", "RunDir", "hash_files", "read_audit", "read_run", "read_sides"]

SCHEMA = 1
FINISHED = ("complete", "partial")


@dataclass(frozen=True, kw_only=True, eq=False)
class RunDir:
    """A finished run.

    Attributes:
        path: its directory.
        meta: run.json as a dict.
        records: one row per model, sample, attack and budget, in the dtypes of `records.DTYPES`.
        timings: wall seconds by model, attack and norm; None if the run measured none.
        audit: audit.json as a dict; None if the run was not audited.
        depth: `depth.parquet`, sensitivity along depth; None if no model has a depth to follow.
        noise: `uncertainty.parquet`, P(correct) under noise; None if the protocol asks for none.
        certificates: `certificates.parquet`, certified radii; None if the protocol asks for none.
        smoothed: `smoothed.parquet`, those of the smoothed model; None if the protocol asks for none.
    """

    path: Path
    meta: dict[str, Any]
    records: pd.DataFrame
    timings: pd.DataFrame | None = None
    audit: dict[str, Any] | None = None
    depth: pd.DataFrame | None = None
    noise: pd.DataFrame | None = None
    certificates: pd.DataFrame | None = None
    smoothed: pd.DataFrame | None = None


def hash_files(path: Path, *, skip: tuple[str, ...] = ("run.json", "shards")) -> dict[str, str]:
    """Return {relative POSIX path: sha256} of every file in a run directory, sorted, without those under `skip`."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    names = ((file.relative_to(path), file) for file in files)
    return {name.as_posix(): file_digest(file) for name, file in names if name.parts[0] not in skip}


def read_run(path: str | Path) -> RunDir:
    """Read a finished run directory after checking it against its own run.json.

    Raises:
        RunError: if the directory is missing or not a run, is of another schema, is unfinished, or a file that run.json
            lists is gone or has other bytes.
    """
    path = Path(path)
    if not path.is_dir():
        raise RunError(
            f"no run directory '{path}'", fix="Give the directory that `robustode eval` printed as its output"
        )
    meta = _read_meta(path)
    _check_files(path, meta.get("files", {}))
    timings = path / "timings.parquet"
    return RunDir(
        path=path,
        meta=meta,
        records=records_file.read(path / "records.parquet"),
        timings=pd.read_parquet(timings) if timings.is_file() else None,
        **read_sides(path),
    )


def read_sides(path: Path) -> dict[str, Any]:
    """Return what a run directory holds beside records and timings, by the names of `RunDir`; None where it is not."""
    return {
        "audit": read_audit(path),
        "depth": read_depth(path),
        "noise": read_noise(path),
        "certificates": read_certificates(path),
        "smoothed": read_smoothed(path),
    }


def read_audit(path: Path) -> dict[str, Any] | None:
    """Return audit.json of a run directory; None if there is none."""
    file = path / "audit.json"
    return read_json(file, RunError) if file.is_file() else None


def _read_meta(path: Path) -> dict[str, Any]:
    """Read run.json and check that it describes a finished run of this schema."""
    file = path / "run.json"
    if not file.is_file():
        raise RunError(f"'{path}' is not a run directory", expected="a file run.json in it", got="none")
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"'{file}'", expected="a JSON document", got=str(error), fix="Run the evaluation again"
        ) from error
    schema = meta.get("schema") if isinstance(meta, dict) else None
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        fix = "Update robustode to read it" if newer else "Run the evaluation again with this version"
        raise RunError(f"schema of '{file}'", expected=SCHEMA, got="none" if schema is None else schema, fix=fix)
    if meta.get("status") not in FINISHED:
        raise RunError(
            f"run '{path}' is not finished",
            expected=f"status {' or '.join(FINISHED)}",
            got=f"'{meta.get('status')}'",
            fix="Finish it with the same command and --resume",
        )
    return meta


def _check_files(path: Path, files: Mapping[str, str]) -> None:
    """Compare every listed file with its recorded hash."""
    changed = []
    for name, digest in files.items():
        file = path / name
        if not file.is_file():
            changed.append(f"{name} is missing")
        elif file_digest(file) != digest:
            changed.append(f"{name} has other bytes")
    if changed:
        fix = "Run the evaluation again, or restore the files"
        what = f"run '{path}' has other fingerprints than its run.json, it was changed by hand"
        raise RunError(f"{what}: {'; '.join(changed)}", fix=fix)
