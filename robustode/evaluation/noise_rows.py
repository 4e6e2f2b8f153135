"""Probability of a right answer under noise, propagated and drawn, for every sample of a run: `uncertainty.parquet`."""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from robustode.attacks.adapters.rng import forked_rng
from robustode.evaluation import shards
from robustode.evaluation.engine import seed_of
from robustode.evaluation.jobs import Ready
from robustode.evaluation.kept import keep, read_dtypes
from robustode.evaluation.noise import DRAWN, NoiseEntry
from robustode.uncertainty import CheckedUncertainty, DrawnUncertainty, Uncertainty, propagate

FILE = "uncertainty.parquet"
TIMED = "uncertainty:"  # how these methods are named among the timings
DTYPES: dict[str, str] = {
    "model": "string",
    "sample": "int64",  # index in the full split
    "label": "int64",
    "sigma": "float64",  # of the input noise, raw-input units
    "weights": "string",  # noise of the weights: none, int8 or a standard deviation
    "method": "string",  # of propagation, or monte-carlo
    "p_correct": "float64",
    "p_error": "float64",  # numerical error of p_correct, or standard error of the draws
    "effective_margin": "float64",  # smallest margin over its standard deviation; ±inf without uncertainty
    "margin": "float64",  # the mean of that margin, logits
    "std": "float64",  # its standard deviation, logits
    "other": "int64",  # the class that it is the margin to
    "disagreement": "Float64",  # of linear and unscented; null but for auto
    "linear_valid": "boolean",  # whether that is at most 0.1
    "draws": "Int64",  # null but for monte-carlo
}


def noise_rows(ready: Ready, entry: NoiseEntry, *, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row for each sample, level and method of one model, in the dtypes of `DTYPES`, and the wall seconds.

    Args:
        ready: the model and its samples.
        entry: noise, methods and draws; `drawn` samples, spread over all, have Monte Carlo rows, too.
        seed: of the run; the draws of a level follow from it and from the model.

    Raises:
        OptionError: a method that the model does not allow.
    """
    parts = ready.shards
    x, y = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y"))
    index = torch.cat([part.index for part in parts])
    frames, seconds = [], []
    for sigma in entry.sigma:
        noise = {"input_cov": sigma**2, "weight_cov": entry.weight_cov()}
        for method in (*entry.methods, DRAWN):
            rows = torch.arange(len(y)) if method != DRAWN else spread(len(y), entry.drawn)
            if not len(rows):
                continue
            extra: dict[str, Any] = {}
            if method == DRAWN:
                made = seed_of(seed, ready.subject.hash, "noise", sigma, entry.weights)
                extra = {"draws": entry.draws, "generator": torch.Generator().manual_seed(made)}
            start = time.perf_counter()
            labels = y.cpu()[rows]
            own = seed_of(seed, ready.subject.hash, "noise of the model", sigma, entry.weights, method)
            with forked_rng(torch.Generator().manual_seed(own)):  # of a model that answers at random
                found = propagate(ready.planned.module, x[rows.to(x.device)], method=method, **noise, **extra)
            columns = _columns(found, labels, seed)
            took = time.perf_counter() - start
            who = {"model": ready.subject.label, "sample": index[rows].numpy(), "label": labels.numpy()}
            level = {"sigma": sigma, "weights": entry.weights, "method": method}
            frames.append(pd.DataFrame({**who, **level, **columns})[list(DTYPES)].astype(DTYPES))
            named = {"model": ready.subject.label, "attack": f"{TIMED}{method}", "norm": "", "shard": 0}
            seconds.append({**named, "samples": len(rows), "seconds": took})
    return pd.concat(frames, ignore_index=True), pd.DataFrame(seconds)


def spread(total: int, count: int) -> torch.Tensor:
    """Return the places of min(total, count) samples among `total`, evenly spread."""
    return torch.linspace(0, total - 1, min(total, count), dtype=torch.float64).round().long()


def _columns(found: Uncertainty, y: torch.Tensor, seed: int) -> dict[str, Any]:
    probability, decisive = found.probability(y, seed=seed), found.effective_margin(y)
    checked = isinstance(found, CheckedUncertainty)
    return {
        "p_correct": probability.value.numpy(),
        "p_error": probability.error.numpy(),
        "effective_margin": decisive.value.numpy(),
        "margin": decisive.margin.numpy(),
        "std": decisive.std.numpy(),
        "other": decisive.other.numpy(),
        "disagreement": found.disagreement.cpu().numpy() if checked else math.nan,
        "linear_valid": found.linear_valid.cpu().numpy() if checked else None,
        "draws": found.draws if isinstance(found, DrawnUncertainty) else None,
    }


def keep_noise(ready: Ready, entry: NoiseEntry, out: Path, *, seed: int) -> None:
    """Write the rows of one model into the shards of a run, unless they are there."""
    keep(kept_noise(out, ready.subject.label), partial(noise_rows, ready, entry, seed=seed))


def kept_noise(out: Path, label: str) -> Path:
    """Return where the rows of a model are while the run is not finished."""
    return out / "shards" / shards.safe(label) / FILE


def read_noise(path: Path) -> pd.DataFrame | None:
    """Return `uncertainty.parquet` of a run directory; None if there is none."""
    return read_dtypes(path / FILE, DTYPES)
