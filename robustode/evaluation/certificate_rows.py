"""Certified radius of every sample of a run: `certificates.parquet`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from robustode.certificates import certify
from robustode.certificates.certificate import CERTIFIED, MISCLASSIFIED, NOTHING
from robustode.evaluation import shards
from robustode.evaluation.certified import CertifyEntry
from robustode.evaluation.jobs import Ready
from robustode.evaluation.kept import Unit, keep, read_dtypes
from robustode.evaluation.rows import Shard

FILE = "certificates.parquet"
TIMED = "certificate:"  # how these are named among the timings
DTYPES: dict[str, str] = {
    "model": "string",
    "sample": "int64",  # index in the full split
    "label": "int64",
    "clean_pred": "int64",
    "norm": "string",
    "map": "string",  # what is certified: discrete, the deployed map; or flow, the solution of the ODE
    "status": "string",  # certified, misclassified or nothing
    "radius": "float64",  # raw-input units; 0 where nothing is certified
    "nearest": "Int64",  # class that the radius is of; null without one
    "method": "string",  # bound that gave it, "" without one
    "passes": "float64",  # forward passes of one sample, all bounds together; 0 if misclassified
}


def certificate_rows(ready: Ready, shard: Shard, entry: CertifyEntry, norm: str) -> pd.DataFrame:
    """Return a row for each sample of a shard in one norm, in the dtypes of `DTYPES`.

    Samples that the judge found misclassified are not certified.
    """
    count = len(shard.y)
    right = (shard.clean_pred == shard.y).cpu().numpy()
    columns: dict[str, Any] = {
        "status": np.where(right, NOTHING, MISCLASSIFIED).astype(object),
        "radius": np.zeros(count),
        "nearest": np.full(count, -1),
        "method": np.full(count, "", dtype=object),
        "passes": np.zeros(count),
    }
    if right.any():
        rows = torch.from_numpy(right).to(shard.x.device)
        x, y = shard.x[rows], shard.y[rows]
        found = certify(ready.planned.module, x, y, norm=norm, methods=entry.named, certifies=entry.map)
        status = [NOTHING if one == MISCLASSIFIED else one for one in found.status]  # in a batch, by rounding
        values = (status, found.radius, found.nearest, found.method, found.passes)
        for name, value in zip(columns, values, strict=True):
            columns[name][right] = value.cpu().numpy() if isinstance(value, torch.Tensor) else value
    answers = {"label": shard.y, "clean_pred": shard.clean_pred}
    who = {"model": ready.subject.label, "sample": shard.index.cpu().numpy()}
    who |= {name: value.cpu().numpy() for name, value in answers.items()}
    columns["nearest"] = pd.Series(columns["nearest"], dtype="Int64").mask(columns["status"] != CERTIFIED)
    frame = pd.DataFrame({**who, "norm": norm, "map": entry.map, **columns})
    return pd.DataFrame(frame[list(DTYPES)]).astype(DTYPES)


def keep_certificates(ready: Ready, shard: Shard, entry: CertifyEntry, norm: str, out: Path) -> None:
    """Write the rows of one model, shard and norm into the shards of a run, unless they are there."""

    def make() -> Unit:
        start = time.perf_counter()
        rows = certificate_rows(ready, shard, entry, norm)
        took, count = time.perf_counter() - start, sum((rows["status"] != MISCLASSIFIED).tolist())
        named = {"model": ready.subject.label, "attack": f"{TIMED}{entry.map}", "norm": norm, "shard": shard.number}
        return rows, pd.DataFrame([{**named, "samples": count, "seconds": took}])

    keep(kept_certificates(out, ready.subject.label, norm, shard.number), make)


def kept_certificates(out: Path, label: str, norm: str, number: int) -> Path:
    """Return where the rows of a model, norm and shard are while the run is not finished."""
    return shards.place(out, label, f"{TIMED}{norm}", number).with_suffix(".parquet")


def read_certificates(path: Path) -> pd.DataFrame | None:
    """Return `certificates.parquet` of a run directory; None if there is none."""
    return read_dtypes(path / FILE, DTYPES)
