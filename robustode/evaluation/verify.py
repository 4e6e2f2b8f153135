"""Re-scoring of the adversarials that a run stored, and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from robustode.data import CATALOGUE, Data, load_data
from robustode.errors import ModelError, RunError
from robustode.evaluation.judge import Judge
from robustode.evaluation.rundir import RunDir
from robustode.evaluation.worst_case import worst_case
from robustode.models.base import parameters_like


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What re-scoring found.

    Attributes:
        label: model of the run that the stored points belong to.
        same_model: whether its weights have the run's hash.
        frame: norm, eps, claimed, rescored (robust accuracies; eps 0 is clean), n.
        points, held: stored points, and how many are still adversarial at no more than their recorded distance.
        worst: largest relative change of a distance.
    """

    label: str
    same_model: bool
    frame: pd.DataFrame
    points: int
    held: int
    worst: float


def verify(
    run: RunDir, model: Any, model_hash: str, *, label: str | None = None, data_root: str | None = None
) -> Verified:
    """Predict every stored adversarial of one model again and recompute its robust accuracy from them alone.

    Args:
        run: a finished run with stored adversarials.
        model: classifier on its device, in eval mode.
        model_hash: its hash; the run's model with this hash is verified.
        label: the run's model to compare with, if the hash is none of the run's.
        data_root: folder of the real image sets.

    Raises:
        RunError: no stored adversarials, or the data cannot be found as they were.
        ModelError: the model is none of the run's, and no label is given.
    """
    entry = _entry(run, model_hash, label)
    data = _same_data(run, data_root)
    judge, rows, points, held, worst = Judge(model), [], 0, 0, 0.0
    device, dtype = parameters_like(model)
    x, y = data.x.to(device=device, dtype=dtype), data.y.to(device)
    pred, _ = judge.answer(x, y)
    place = {int(i): row for row, i in enumerate(data.index)}
    claimed_clean = float(entry["clean_accuracy"])
    for norm, radii in run.meta["protocol"]["budgets"].items():
        distance = np.where((pred != y).cpu().numpy(), 0.0, np.inf)
        file = _stored_file(run, entry["label"], norm)
        if file is not None:
            stored = load_file(file)
            at = torch.tensor([place[int(i)] for i in stored["sample"]], dtype=torch.int64)
            verdict = judge.judge(x[at], stored["x_adv"].to(x), y[at], norm=norm, eps=None)
            found = verdict.distance.cpu().numpy()
            recorded = stored["distance"].numpy()
            still = np.isfinite(found) & (found <= recorded * (1 + 1e-6) + 1e-12)
            points, held = points + len(at), held + int(still.sum())
            finite = np.isfinite(found)
            if finite.any():
                change = np.abs(found[finite] - recorded[finite]) / np.maximum(recorded[finite], 1e-300)
                worst = max(worst, float(change.max()))
            distance[at.numpy()] = np.minimum(distance[at.numpy()], found)
        case = worst_case(run.records, entry, norm)
        tolerance = run.meta["tolerances"][norm]
        rows.append((norm, 0.0, claimed_clean, float((distance > 0).mean()), len(data)))
        for eps in radii:
            robust = float((distance > eps + tolerance[str(eps)]).mean())
            rows.append((norm, eps, float(case.robust(eps).mean()), robust, len(data)))
    if points == 0 and not any(_stored_file(run, entry["label"], norm) for norm in run.meta["protocol"]["budgets"]):
        raise RunError(
            f"run '{run.path}'", expected="stored adversarials", got="none", fix="Run it without --no-store."
        )
    frame = pd.DataFrame(rows, columns=["norm", "eps", "claimed", "rescored", "n"])
    same = model_hash == entry["hash"]
    return Verified(label=entry["label"], same_model=same, frame=frame, points=points, held=held, worst=worst)


def _entry(run: RunDir, model_hash: str, label: str | None) -> dict[str, Any]:
    models = run.meta["models"]
    for entry in models:
        if (label is None and entry["hash"] == model_hash) or entry["label"] == label:
            return entry
    listing = ", ".join(f"{m['label']} ({m['hash']})" for m in models)
    fix = "Give the model that the run evaluated, or name the one to compare with by --label."
    raise ModelError(f"model of run '{run.path}'", expected=f"one of {listing}", got=label or model_hash, fix=fix)


def _same_data(run: RunDir, data_root: str | None) -> Data:
    meta = run.meta["data"]
    protocol = run.meta["protocol"]
    bounds = None if meta["name"] in CATALOGUE else meta["bounds"]
    data = load_data(
        meta["name"],
        split=protocol["split"] if protocol["split"] != "all" else "test",
        limit=protocol["limit"],
        seed=protocol["seed"],
        root=data_root,
        bounds=None if bounds is None else (bounds[0], bounds[1]),
    )
    if data.fingerprint != meta["fingerprint"]:
        fix = "Restore the data that the run used."
        raise RunError(
            f"data '{meta['name']}'",
            expected=f"fingerprint {meta['fingerprint'][:16]}",
            got=data.fingerprint[:16],
            fix=fix,
        )
    return data


def _stored_file(run: RunDir, label: str, norm: str) -> Any:
    for file in sorted((run.path / "adversarials").glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            meta = handle.metadata() or {}
        if meta.get("model") == label and meta.get("norm") == norm:
            return file
    return None
