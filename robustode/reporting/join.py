"""Several comparable runs as one: the same samples under the same attacks, with every model's label unique."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from robustode.errors import RunError
from robustode.evaluation.examination import claimed
from robustode.evaluation.records import canonical_json, rows, sort
from robustode.evaluation.rundir import RunDir

_CHECKS: dict[str, Callable[[RunDir], Any]] = {
    "schema": lambda run: run.meta["schema"],
    "data": lambda run: run.meta["data"]["name"],
    "data fingerprint": lambda run: run.meta["data"]["fingerprint"],
    "split": lambda run: run.meta["data"]["split"],
    "number of samples": lambda run: run.meta["data"]["n"],
    "bounds": lambda run: sorted({tuple(model["bounds"]) for model in run.meta["models"]}),
    "norms": lambda run: sorted(set(claimed(run.records)["norm"])),
    "budgets": lambda run: {norm: sorted(epses) for norm, epses in run.meta["protocol"]["budgets"].items()},
    "eot": lambda run: run.meta.get("eot"),
    "attacks": lambda run: sorted(set(claimed(run.records)["attack"])),
    "uncertainty": lambda run: run.meta["protocol"].get("uncertainty"),
    "audit": lambda run: (run.audit or {}).get("scope"),
}

_SIDES = ("timings", "depth", "noise", "certificates", "smoothed")
# of certificates: the key of their radii in run.json, and the columns that must say the same
_ALIKE = {"certificates": ("certified", ("norm", "map")), "smoothed": ("smoothed", ("sigma", "draws", "alpha"))}


def join(runs: Sequence[RunDir]) -> RunDir:
    """Return one run that holds the models of all; a repeated label gets "#2", "#3", ...

    A model's `run` says where it is from. The path is that of the first run; meta too, with the models, skipped attacks
    and errors of all; `timings` are joined if every run has them.

    Raises:
        RunError: naming what differs: data, split, samples, bounds, norms, budgets, eot, attacks or their parameters.
    """
    if not runs:
        raise RunError("runs", expected="at least one run directory", got="none")
    for other in runs[1:]:
        check_comparable(runs[0], other)
    records, models, audits, seen = [], [], [], {}
    sides: dict[str, list[pd.DataFrame]] = {name: [] for name in _SIDES}
    for run in runs:
        names = {}
        for model in run.meta["models"]:
            count = seen[model["label"]] = seen.get(model["label"], 0) + 1
            names[model["label"]] = model["label"] if count == 1 else f"{model['label']}#{count}"
            models.append(
                {**model, "label": names[model["label"]], **({"run": str(run.path)} if len(runs) > 1 else {})}
            )
        records.append(_rename(run.records, names))
        findings = run.audit["findings"] if run.audit else []
        audits += [{**finding, "model": names[finding["model"]]} for finding in findings]
        for name, parts in sides.items():
            if (frame := getattr(run, name)) is not None:
                parts.append(_rename(frame, names))
    meta = {**runs[0].meta, "models": models, **_gathered(runs)}
    together = sort(pd.concat(records, ignore_index=True))
    frames = {name: _together(runs, name, parts) for name, parts in sides.items()}
    return RunDir(path=runs[0].path, meta=meta, records=together, audit=_audits(runs, audits), **frames)


def left_apart(runs: Sequence[RunDir]) -> list[str]:
    """Return what some of the runs have and `join` leaves out, as not all have it for the same norms, radii and map."""
    return [name for name in _ALIKE if any(getattr(run, name) is not None for run in runs) and not _alike(runs, name)]


def _together(runs: Sequence[RunDir], name: str, parts: list[pd.DataFrame]) -> pd.DataFrame | None:
    """The rows of all runs; None unless every run has them, apart from those along depth, which twins have not."""
    enough = len(parts) == len(runs) or (name == "depth" and len(parts) > 0)
    return pd.concat(parts, ignore_index=True) if enough and (name not in _ALIKE or _alike(runs, name)) else None


def _alike(runs: Sequence[RunDir], name: str) -> bool:
    """Whether every run has certificates of the same norms, radii and map; the bounds may be others."""
    key, columns = _ALIKE[name]
    frames = [getattr(run, name) for run in runs]
    if any(frame is None for frame in frames):
        return False
    kinds = [
        (run.meta[key], *(set(frame[column]) for column in columns)) for run, frame in zip(runs, frames, strict=True)
    ]
    return all(kind == kinds[0] for kind in kinds)


def _audits(runs: Sequence[RunDir], findings: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The audit of all models; adaptive attacks are those of any run."""
    if runs[0].audit is None:
        return None
    adaptive = dict.fromkeys(run.audit["adaptive_attack"] for run in runs if run.audit and run.audit["adaptive_attack"])
    return {**runs[0].audit, "adaptive_attack": ", ".join(adaptive) or None, "findings": findings}


def check_comparable(first: RunDir, other: RunDir) -> None:
    """Raise `RunError` if numbers of the two runs may not stand side by side, naming the first thing that differs."""
    for what, value in _CHECKS.items():
        if value(first) != value(other):
            _refuse(first, other, what, value(first), value(other))
    cards, others = _cards(first), _cards(other)
    for name in sorted(cards.keys() | others.keys()):
        if cards.get(name) != others.get(name):
            _refuse(first, other, f"parameters of attack '{name}'", cards.get(name), others.get(name))
    samples, more = (set(run.records["sample"]) for run in (first, other))
    if samples != more:
        got = f"{len(samples & more)} samples in common of {len(samples)} and {len(more)}"
        _refuse(first, other, "samples", "the same samples", got)


def _refuse(first: RunDir, other: RunDir, what: str, expected: Any, got: Any) -> None:
    raise RunError(
        f"runs '{first.path}' and '{other.path}' are not comparable: {what}",
        expected="none" if expected is None else expected,
        got="none" if got is None else got,
        fix="Evaluate both models by one protocol",
    )


def _cards(run: RunDir) -> dict[str, str]:
    """All that defines an attack that has rows, as text; without a card, the parameters that its rows state."""
    ran = set(claimed(run.records)["attack"])
    cards = {
        card["name"]: canonical_json({key: value for key, value in card.items() if key not in ("title", "paper")})
        for card in run.meta["protocol"]["attacks"]
        if card["name"] in ran
    }
    return {name: cards.get(name) or " ".join(sorted(set(rows(run.records, attack=name)["params"]))) for name in ran}


def _gathered(runs: Sequence[RunDir]) -> dict[str, Any]:
    """Skipped attacks and those not applicable (once each), errors and the worst status of all runs."""
    skipped = {(entry["attack"], entry["reason"]): entry for run in runs for entry in run.meta.get("skipped") or []}
    status = "partial" if any(run.meta["status"] == "partial" for run in runs) else runs[0].meta["status"]
    errors = [entry for run in runs for entry in run.meta.get("errors") or []]
    unfit = {(e["attack"], e["reason"]): e for run in runs for e in run.meta.get("not_applicable") or []}
    named = {"not_applicable": list(unfit.values())} if unfit else {}
    return {"skipped": list(skipped.values()), "errors": errors, "status": status, **named}


def _rename(frame: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    return frame.assign(model=frame.model.map(names).astype(frame.model.dtype))
