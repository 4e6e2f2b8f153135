"""Re-scoring of the adversarials that a run stored, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from robustode.attacks.adapters.rng import forked_rng
from robustode.data import CATALOGUE, Data, load_data
from robustode.errors import ModelError, RunError
from robustode.evaluation.adversarials import FOLDER, TENSORS
from robustode.evaluation.engine import seed_of
from robustode.evaluation.eot import Averaged
from robustode.evaluation.judge import Judge
from robustode.evaluation.margins import FURTHEST
from robustode.evaluation.rundir import RunDir
from robustode.evaluation.shards import read_header
from robustode.evaluation.worst_case import worst_case
from robustode.models.base import parameters_like

RELATIVE = 1e-6  # by which a distance may exceed what it must not


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What re-scoring found.

    What it shows: the robust accuracy is at most `rescored`. It equals `claimed` if all points hold, apart from the
    `beyond` samples of an ε: the attack found their adversarial at a distance ≤ ε + τ, but it was pushed to a margin
    that holds on other hardware before it was stored, and now lies just outside.

    Attributes:
        label: model of the run that the stored points belong to.
        same_model: whether its weights have the run's hash.
        frame: norm, eps, claimed, rescored (robust accuracies; eps 0 is clean), beyond, n.
        points: adversarials that the records claim: samples that an attack broke, in every norm.
        held: those whose stored point is still adversarial at no more than the recorded distance, or, if it was pushed,
            at no more than the distance stored with it, which is at most twice the recorded one.
        pushed: those that were stored further out than they were found.
        thin: those that hold with a smaller margin than the one required: they may not hold on other hardware.
        worst: largest relative change of a distance among stored points that are still adversarial.
    """

    label: str
    same_model: bool
    frame: pd.DataFrame
    points: int
    held: int
    pushed: int
    thin: int
    worst: float


def verify(
    run: RunDir,
    model: Any,
    model_hash: str,
    *,
    label: str | None = None,
    data: Any = None,
    data_root: str | None = None,
) -> Verified:
    """Predict every stored adversarial of one model again and recompute its robust accuracy from them alone.

    Args:
        run: a finished run with stored adversarials.
        model: classifier on its device, in eval mode.
        model_hash: its hash; the run's model with this hash is verified.
        label: the run's model to compare with, if the hash is none of the run's.
        data: the data of the run, for data that were given as an object and have no name.
        data_root: folder of the real image sets.

    Raises:
        RunError: no stored adversarials, or the data cannot be found as they were.
        ModelError: the model is none of the run's, and no label is given.
    """
    entry = _entry(run, model_hash, label)
    files = {norm: _stored_file(run, entry["label"], norm) for norm in run.meta["protocol"]["budgets"]}
    if not any(files.values()):
        fix = "Evaluate it without --no-store, and with attacks."
        raise RunError(f"run '{run.path}'", expected="stored adversarials", got="none", fix=fix)
    samples = _same_data(run, data, data_root)
    draws = run.meta.get("eot")
    judge = Judge(model if draws is None else Averaged(model, draws))
    with forked_rng(torch.Generator().manual_seed(seed_of(run.meta["seeds"]["run"], model_hash, "verify"))):
        scores = [_score(run, entry, norm, file, samples, judge) for norm, file in files.items()]
    return Verified(
        label=entry["label"],
        same_model=model_hash == entry["hash"],
        frame=pd.concat([score.frame for score in scores], ignore_index=True),
        points=sum(score.points for score in scores),
        held=sum(score.held for score in scores),
        pushed=sum(score.pushed for score in scores),
        thin=sum(score.thin for score in scores),
        worst=max(score.worst for score in scores),
    )


@dataclass(frozen=True, kw_only=True)
class _Score:
    frame: pd.DataFrame
    points: int
    held: int
    pushed: int
    thin: int
    worst: float


def _score(run: RunDir, entry: dict[str, Any], norm: str, file: Path | None, data: Data, judge: Judge) -> _Score:
    """Score one norm: the points that the file has against the distances that the records claim."""
    claimed = worst_case(run.records, entry, norm)
    order = np.argsort(data.index.numpy())  # of the data, in the order of the records' samples
    stored = _rescore(file, data, judge, norm).iloc[order]
    distance, recorded = stored["distance"].to_numpy(), claimed.distance
    broken = np.isfinite(recorded) & (recorded > 0)
    allowed = _allowed(recorded, stored)
    held = broken & (distance <= allowed * (1 + RELATIVE))
    both = broken & np.isfinite(distance)
    change = np.abs(distance[both] - allowed[both]) / allowed[both]
    rescored = replace(claimed, distance=distance)
    table = [(norm, 0.0, float(entry["clean_accuracy"]), float((distance > 0).mean()), 0, len(data))]
    for eps in run.meta["protocol"]["budgets"][norm]:
        before, after = claimed.robust(eps), rescored.robust(eps)
        beyond = int((after & ~before & held).sum())
        table.append((norm, eps, float(before.mean()), float(after.mean()), beyond, len(data)))
    return _Score(
        frame=pd.DataFrame(table, columns=["norm", "eps", "claimed", "rescored", "beyond", "n"]),
        points=int(broken.sum()),
        held=int(held.sum()),
        pushed=int((broken & (allowed > recorded)).sum()),
        thin=int((held & (stored["margin"] < stored["required"]).to_numpy()).sum()),
        worst=float(change.max()) if len(change) else 0.0,
    )


def _allowed(recorded: np.ndarray, stored: pd.DataFrame) -> np.ndarray:
    """Return the distance that each stored point must keep: its own if it was pushed from the recorded one."""
    found, claim = stored["found"].to_numpy(), stored["claim"].to_numpy()
    with np.errstate(invalid="ignore"):
        from_it = np.abs(found - recorded) <= RELATIVE * recorded
    pushed = from_it & (claim > found) & (claim <= FURTHEST * found * (1 + RELATIVE))
    return np.where(pushed, claim, recorded)


def _rescore(file: Path | None, data: Data, judge: Judge, norm: str) -> pd.DataFrame:
    """Return, by row of the data, what the stored points are now and what the file says of them.

    `distance` is the adversarial's now: 0 if the sample is misclassified, +inf if it has no point that is adversarial,
    or one that was made from another input; `margin` its margin; `found`, `claim` and `required` are the file's.
    """
    device, dtype = parameters_like(judge.model)
    x, y = data.x.to(device=device, dtype=dtype), data.y.to(device)
    pred, _ = judge.answer(x, y)
    columns = ("distance", "margin", "found", "claim", "required")
    out = {name: torch.full((len(y),), torch.inf, dtype=torch.float64) for name in columns}
    if file is not None:
        stored = _read(file)
        rows = _rows_of(stored["sample"], data, file)
        at = rows.to(device)
        verdict = judge.judge(x[at], stored["x_adv"].to(x), y[at], norm=norm, eps=None)
        own = (stored["x"].to(x) == x[at]).flatten(1).all(1) & (stored["label"].to(y) == y[at])
        out["distance"][rows] = torch.where(own, verdict.distance, torch.inf).cpu()
        out["margin"][rows] = -verdict.margin.cpu()
        for name, tensor in (("found", "found"), ("claim", "distance"), ("required", "required")):
            out[name][rows] = stored[tensor].double()
    out["distance"][(pred != y).cpu()] = 0.0
    return pd.DataFrame({name: value.numpy() for name, value in out.items()})


def _read(file: Path) -> dict[str, Tensor]:
    stored = load_file(file)
    missing = [name for name in TENSORS if name not in stored]
    if missing:
        fix = "It was written by an older version: evaluate again with this one."
        raise RunError(f"file '{file}'", expected=f"tensors {', '.join(TENSORS)}", got=f"no {missing[0]}", fix=fix)
    return stored


def _rows_of(samples: Tensor, data: Data, file: Path) -> Tensor:
    place = {sample: row for row, sample in enumerate(data.index.tolist())}
    strange = [sample for sample in samples.tolist() if sample not in place]
    if strange:
        raise RunError(f"file '{file}'", expected="samples of the run", got=f"sample {strange[0]}")
    return torch.tensor([place[sample] for sample in samples.tolist()], dtype=torch.int64)


def _entry(run: RunDir, model_hash: str, label: str | None) -> dict[str, Any]:
    models: Sequence[dict[str, Any]] = run.meta["models"]
    for entry in models:
        if entry["hash"] == model_hash if label is None else entry["label"] == label:
            return entry
    listing = ", ".join(f"{m['label']} ({m['hash']})" for m in models)
    fix = "Give the model that the run evaluated, or name the one to compare with by --label."
    raise ModelError(f"model of run '{run.path}'", expected=f"one of {listing}", got=label or model_hash, fix=fix)


def _same_data(run: RunDir, given: Any, data_root: str | None) -> Data:
    """Return the samples of the run, by the indices in its records, after checking that they are as they were."""
    meta, split = run.meta["data"], run.meta["protocol"]["split"]
    source = meta["name"] if given is None else given
    bounds = None if given is not None or source in CATALOGUE or meta["bounds"] is None else tuple(meta["bounds"])
    data = load_data(source, split="test" if split == "all" else split, root=data_root, bounds=bounds)
    wanted = torch.from_numpy(np.unique(run.records["sample"].to_numpy()))
    rows = torch.isin(data.index, wanted)
    if bool(rows.any()) and not bool(rows.all()):
        data = replace(data, x=data.x[rows], y=data.y[rows], index=data.index[rows])
    if data.fingerprint != meta["fingerprint"]:
        expected, got = f"fingerprint {meta['fingerprint'][:16]}", data.fingerprint[:16]
        fix = "Restore the data that the run used."
        raise RunError(f"data '{meta['name']}'", expected=expected, got=got, fix=fix)
    return data


def _stored_file(run: RunDir, label: str, norm: str) -> Path | None:
    for file in sorted((run.path / FOLDER).glob("*.safetensors")):
        header = read_header(file)
        if header.get("model") == label and header.get("norm") == norm:
            return file
    return None
