"""Synthetic finished runs whose every number is known, for the tests of records, tables, figures and reports."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustode.evaluation import records
from robustode.evaluation.rundir import RunDir, hash_files, read_run
from robustode.files import write_json

BUDGETS = {"linf": [0.1, 0.2, 0.3], "l2": [0.5, 1.0]}


def card(name: str, implementation: str, norm: str, *, minimal: bool = False, **params: Any) -> dict[str, Any]:
    """A resolved attack card."""
    return {"name": name, "implementation": implementation, "norm": norm, "params": params, "minimal": minimal}


CARDS = [
    card("fgsm-linf", "torchattacks:FGSM", "linf"),
    card("one-step-margin", "robustode:one-step", "linf", kind="margin"),
    card("pgd-linf", "torchattacks:PGD", "linf", steps=40),
    card("sensitivity-linf", "robustode:sensitivity", "linf", minimal=True),
    card("sensitivity-l2", "robustode:sensitivity", "l2", minimal=True),
    card("deepfool-l2", "foolbox:L2DeepFoolAttack", "l2", minimal=True, steps=50),
]
STRENGTH = {"fgsm-linf": 2.0, "one-step-margin": 1.7, "pgd-linf": 1.05, "sensitivity-linf": 1.0}
STRENGTH |= {"sensitivity-l2": 1.0, "deepfool-l2": 1.15}


def row(**values: Any) -> dict[str, Any]:
    """One record: a failed L∞ attack at ε = 0.1 on sample 0 of model "a", changed by `values`."""
    base: dict[str, Any] = {
        "model": "a",
        "model_hash": "h-a",
        "data": "toy",
        "sample": 0,
        "label": 1,
        "clean_pred": 1,
        "attack": "pgd-linf",
        "params": '{"steps":40}',
        "norm": "linf",
        "eps": 0.1,
        "target": None,
        "seed": 0,
        "protocol": "p0",
        "status": "failed",
        "distance": math.inf,
        "adv_pred": 1,
        "clean_margin": 0.5,
        "adv_margin": 0.2,
        "converged": None,
        "kkt": None,
        "forwards": 40.0,
        "backwards": 40.0,
        "nfe": None,
        "message": "",
    }
    return base | values


def success(distance: float, **values: Any) -> dict[str, Any]:
    """A success at a distance."""
    return row(status="success", distance=distance, adv_pred=0, adv_margin=-0.1) | values


def wrong(**values: Any) -> dict[str, Any]:
    """A sample that is misclassified before the attack."""
    return (
        row(status="misclassified", distance=0.0, clean_pred=0, adv_pred=0, clean_margin=-0.3, adv_margin=-0.3) | values
    )


def error(**values: Any) -> dict[str, Any]:
    """A sample on which the attack raised."""
    return row(status="error", adv_pred=None, adv_margin=None, message="ValueError: no") | values


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    """Validated records of the rows given."""
    return records.validate(pd.DataFrame(list(rows), columns=list(records.COLUMNS)))


def model_meta(label: str, *, n: int, correct: int, **changes: Any) -> dict[str, Any]:
    """A model's entry in run.json."""
    return {
        "label": label,
        "spec": f"zoo:{label}",
        "hash": f"h-{label}",
        "arch": "snode",
        "parameters": 1234,
        "bounds": [0.0, 1.0],
        "classes": 10,
        "input_shape": [1, 8, 8],
        "clean_accuracy": correct / n,
        "clean_correct": correct,
        "n": n,
        "provenance": {"command": f"robustode train snode --data toy --out {label}.safetensors"},
    } | changes


def run_meta(models: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """run.json without files; `changes` replace top-level keys."""
    n = models[0]["n"]
    protocol = {
        "data": "toy",
        "split": "test",
        "limit": n,
        "seed": 0,
        "shard": 500,
        "suite": "standard",
        "attacks": CARDS,
        "budgets": BUDGETS,
        "eot": None,
    }
    return {
        "schema": 1,
        "command": "robustode eval --model a.safetensors",
        "created": "2026-01-02T03:04:05+00:00",
        "status": "complete",
        "protocol": protocol,
        "protocol_hash": "p0",
        "models": models,
        "data": {
            "name": "toy",
            "split": "test",
            "n": n,
            "caption": f"toy, test split, {n} stratified random samples",
            "fingerprint": "f0",
            "bounds": [0.0, 1.0],
            "classes": 10,
            "input_shape": [1, 8, 8],
        },
        "versions": {"robustode": "0.1.0", "torch": "2.13.0"},
        "seeds": {"run": 0},
        "tolerances": {},
        "machine": {"cpu": "test"},
        "skipped": [],
        "errors": [],
        "eot": None,
        "files": {},
    } | changes


def synthetic(labels: dict[str, float], *, n: int = 200, seed: int = 0) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Records and meta of models with log-normal distances: `labels` maps a label to its median L∞ distance.

    Every model shares the difficulty of a sample, every 25th sample is misclassified by all, and an attack finds
    `STRENGTH` times the true distance.
    """
    rng = np.random.default_rng(seed)
    hardness = rng.normal(0.0, 0.5, n)
    rows = []
    for label, median in labels.items():
        true = median * np.exp(hardness + rng.normal(0.0, 0.2, n))
        for entry in CARDS:
            found = (
                true * STRENGTH[entry["name"]] * (1.0 if entry["norm"] == "linf" else 4.0) * rng.uniform(1.0, 1.1, n)
            )
            params, norm = records.canonical_json(entry["params"]), entry["norm"]
            passes = {"forwards": 25.0, "backwards": 9.5} if entry["minimal"] else {"forwards": 41.0, "backwards": 40.0}
            for eps in [None] if entry["minimal"] else BUDGETS[norm]:
                for i in range(n):
                    common = passes | {
                        "model": label,
                        "model_hash": f"h-{label}",
                        "sample": 3 * i,
                        "label": i % 10,
                        "clean_pred": i % 10,
                        "attack": entry["name"],
                        "params": params,
                        "norm": norm,
                        "eps": eps,
                    }
                    if i % 25 == 0:
                        rows.append(wrong(**{**common, "clean_pred": (i + 1) % 10}))
                    elif eps is None:
                        rows.append(success(float(found[i]), **common, converged=bool(i % 7), kkt=1e-6 * (1 + i % 7)))
                    elif found[i] <= eps:
                        rows.append(success(float(eps), **common))
                    else:
                        rows.append(row(**common))
    correct = n - len(range(0, n, 25))
    return frame(*rows), run_meta([model_meta(label, n=n, correct=correct) for label in labels])


def timings(data: pd.DataFrame, milliseconds: float = 2.0) -> pd.DataFrame:
    """Timings in which every attacked row of the records took the same time."""
    counts = (
        data[data["status"] != "misclassified"]
        .value_counts(["model", "attack", "norm"], sort=False)
        .to_frame("seconds")
        .reset_index()
    )
    return counts.assign(seconds=counts["seconds"] * milliseconds / 1000)


def write_run(path: Path, data: pd.DataFrame, meta: dict[str, Any], *, timed: bool = True) -> RunDir:
    """Write a finished run directory and read it back."""
    records.write(data, path / "records.parquet")
    if timed:
        timings(data).to_parquet(path / "timings.parquet")
    write_json({**meta, "files": hash_files(path)}, path / "run.json")
    return read_run(path)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
