"""What the attacks cost: model passes per sample, counted at the model's boundary, and seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from robustode.attacks.base import Status
from robustode.evaluation.records import rows
from robustode.reporting import captions, layout
from robustode.reporting.formatting import NONE, norm_name, number
from robustode.reporting.tables import Table

PASSES = ("forwards", "backwards", "nfe")
_CAPTION = (
    "Passes per attacked sample and budget, mean (median): rows of the batch that go forward and backward through the "
    "model, and evaluations of the right-hand side of the ODE (nfe). Milliseconds: wall time of the same on "
    "the machine of the run; read the ratios."
)


def attack_cost(records: pd.DataFrame, meta: dict[str, Any], timings: pd.DataFrame | None = None) -> list[Table]:
    """Return the cost table, a row per model, norm and attack; nothing for a run without attacks.

    Columns of the numbers: model, attack, norm, samples, and mean and median of forwards, backwards, nfe over the rows
    that were attacked and counted, seconds (total wall time / rows that were attacked; empty without timings).

    Args:
        records: validated records.
        meta: run.json.
        timings: columns model, attack, norm, seconds; any number of rows for each.
    """
    frame = []
    for model in meta["models"]:
        for norm in layout.norms(records, meta):
            own = rows(records, model=model["label"], norm=norm)
            frame += [_row(rows(own, attack=name), timings) for name in layout.attacks(own, meta, norm)]
    if not frame:
        return []
    return [
        Table(
            name="attack_cost",
            title="Cost of the attacks",
            caption=captions.caption(records, meta, _CAPTION),
            frame=pd.DataFrame(frame),
            display=pd.DataFrame([_shown(row) for row in frame]),
        )
    ]


def _row(own: pd.DataFrame, timings: pd.DataFrame | None) -> dict[str, Any]:
    who = {name: str(own[name].iloc[0]) for name in ("model", "attack", "norm")}
    attacked = own["status"].isin([Status.SUCCESS.value, Status.FAILED.value]).to_numpy(dtype=bool)
    tried = int(attacked.sum() + (own["status"] == Status.ERROR.value).sum())
    row: dict[str, Any] = {**who, "samples": int(attacked.sum())}
    for name in PASSES:
        counted = own[name].to_numpy(dtype=float, na_value=np.nan)[attacked]
        counted = counted[~np.isnan(counted)]
        row[f"{name}_mean"] = float(np.mean(counted)) if len(counted) else None
        row[f"{name}_median"] = float(np.median(counted)) if len(counted) else None
    seconds = [] if timings is None else rows(timings, **who)["seconds"].tolist()
    row["seconds"] = sum(seconds) / tried if seconds and tried else None
    return row


def _shown(row: dict[str, Any]) -> dict[str, str]:
    shown = {"model": row["model"], "attack": row["attack"], "norm": norm_name(row["norm"])}
    for name in PASSES:
        mean, median = row[f"{name}_mean"], row[f"{name}_median"]
        shown[name] = NONE if mean is None else f"{_count(mean)} ({_count(median)})"
    seconds = row["seconds"]
    shown["ms / sample"] = NONE if seconds is None else number(1000 * seconds)
    return shown


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.1f}"
