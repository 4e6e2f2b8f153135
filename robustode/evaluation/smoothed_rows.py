"""Certified radius of the smoothed model at every sample of a run: `smoothed.parquet`, apart from the model's own."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import torch

from robustode import certificates
from robustode.attacks.adapters.rng import forked_rng
from robustode.evaluation import shards
from robustode.evaluation.certified import SmoothingEntry
from robustode.evaluation.engine import seed_of
from robustode.evaluation.jobs import Ready
from robustode.evaluation.kept import Unit, keep, read_dtypes
from robustode.evaluation.rows import Shard

FILE = "smoothed.parquet"
TIMED = "smoothing"  # how it is named among the timings
DTYPES: dict[str, str] = {
    "model": "string",
    "sample": "int64",  # index in the full split
    "label": "int64",
    "sigma": "float64",  # of the noise, raw-input units
    "prediction": "int64",  # of the smoothed model; -1 where it abstains
    "radius": "float64",  # L2, within which the smoothed model answers the same; 0 where it abstains
    "p_lower": "float64",  # lower bound of the probability of that answer under noise
    "draws": "int64",
    "alpha": "float64",  # probability at which the radius may be wrong
}


def smoothed_rows(ready: Ready, shard: Shard, entry: SmoothingEntry, *, seed: int) -> pd.DataFrame:
    """Return a row for each sample of a shard, in the dtypes of `DTYPES`; the draws follow from the run's seed."""
    made = seed_of(seed, ready.subject.hash, "smoothing", entry.sigma, shard.number)
    noise = torch.Generator().manual_seed(made)
    with forked_rng(torch.Generator().manual_seed(made)):  # of a model that answers at random
        found = certificates.smooth(
            ready.planned.module, shard.x, sigma=entry.sigma, draws=entry.draws, alpha=entry.alpha, generator=noise
        )
    columns = {
        "model": ready.subject.label,
        "sample": shard.index.cpu().numpy(),
        "label": shard.y.cpu().numpy(),
        "sigma": entry.sigma,
        "prediction": found.prediction.cpu().numpy(),
        "radius": found.radius.cpu().numpy(),
        "p_lower": found.p_lower.cpu().numpy(),
        "draws": entry.draws,
        "alpha": entry.alpha,
    }
    return pd.DataFrame(pd.DataFrame(columns)[list(DTYPES)]).astype(DTYPES)


def keep_smoothed(ready: Ready, shard: Shard, entry: SmoothingEntry, out: Path, *, seed: int) -> None:
    """Write the rows of one model and shard into the shards of a run, unless they are there."""

    def make() -> Unit:
        start = time.perf_counter()
        rows = smoothed_rows(ready, shard, entry, seed=seed)
        named = {"model": ready.subject.label, "attack": TIMED, "norm": "l2", "shard": shard.number}
        return rows, pd.DataFrame([{**named, "samples": len(rows), "seconds": time.perf_counter() - start}])

    keep(kept_smoothed(out, ready.subject.label, shard.number), make)


def kept_smoothed(out: Path, label: str, number: int) -> Path:
    """Return where the rows of a model and shard are while the run is not finished."""
    return shards.place(out, label, f"{TIMED}:l2", number).with_suffix(".parquet")


def read_smoothed(path: Path) -> pd.DataFrame | None:
    """Return `smoothed.parquet` of a run directory; None if there is none."""
    return read_dtypes(path / FILE, DTYPES)
