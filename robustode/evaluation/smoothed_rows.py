"""Certified radius of the smoothed model at every sample of a run: `smoothed.parquet`, apart from the model's own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from robustode import certificates
from robustode.attacks.adapters.rng import forked_rng
from robustode.evaluation import shards
from robustode.evaluation.certified import SmoothingEntry
from robustode.evaluation.engine import seed_of
from robustode.evaluation.jobs import Ready
from robustode.evaluation.rows import Shard
from robustode.files import atomic

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
    path = kept_smoothed(out, ready.subject.label, shard.number)
    if path.is_file():
        return
    start = time.perf_counter()
    rows = smoothed_rows(ready, shard, entry, seed=seed)
    took = time.perf_counter() - start
    named = {"model": ready.subject.label, "attack": TIMED, "norm": "l2", "shard": shard.number}
    with atomic(path.with_suffix(".timings.parquet")) as temporary:
        pd.DataFrame([{**named, "samples": len(rows), "seconds": took}]).to_parquet(temporary, index=False)
    with atomic(path) as temporary:  # last, so that a unit with rows is whole
        rows.to_parquet(temporary, index=False)


def kept_smoothed(out: Path, label: str, number: int) -> Path:
    """Return where the rows of a model and shard are while the run is not finished."""
    return shards.place(out, label, f"{TIMED}:l2", number).with_suffix(".parquet")


def write_smoothed(places: Sequence[Path], out: Path) -> None:
    """Join the units into `smoothed.parquet` of a run directory, atomically."""
    frame = pd.concat([pd.read_parquet(place) for place in places], ignore_index=True)
    with atomic(out / FILE) as temporary:
        frame.to_parquet(temporary, index=False)


def read_smoothed(path: Path) -> pd.DataFrame | None:
    """Return `smoothed.parquet` of a run directory; None if there is none."""
    return pd.read_parquet(path / FILE).astype(DTYPES) if (path / FILE).is_file() else None
