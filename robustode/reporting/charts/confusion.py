"""Confusion under attack: which class the nearest adversarial of each class is taken for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from robustode.evaluation.records import best_distance, rows
from robustode.reporting import captions, layout
from robustode.reporting.charts.chart import Chart, chosen, table
from robustode.reporting.formatting import norm_name

UNBROKEN, NO_CLASS, UNKNOWN = "none", "NaN", "unknown"
_NUMBERS = 12  # classes up to which the cells carry their numbers


def confusion_charts(records: pd.DataFrame, meta: dict[str, Any]) -> list[Chart]:
    """Return, for each norm, the share of each class by the class of its samples' nearest adversarials."""
    return [_of_norm(records, meta, norm) for norm in layout.norms(records, meta) if layout.has(records, norm)]


def confusion(records: pd.DataFrame, label: str, norm: str) -> pd.DataFrame:
    """Return how many samples of each class the nearest adversarial takes to which class, of one model and norm.

    Misclassified samples count by their clean prediction; samples that nothing broke by `UNBROKEN`, by `UNKNOWN` if an
    attack raised on them; an answer that is not finite is `NO_CLASS`.

    Returns:
        Columns label, taken (both text), count, share (of the class); pairs that do not occur are left out.
    """
    own = rows(records, model=label, norm=norm)
    best = best_distance(own, by=())
    found = pd.DataFrame(own[["sample", "attack", "eps", "adv_pred"]]).rename(
        columns={"attack": "found_by", "eps": "found_eps"}
    )
    joined = best.merge(found, on=["sample", "found_by", "found_eps"], how="left")
    wrong = joined["clean_pred"] != joined["label"]
    pred = joined["adv_pred"].where(~wrong, joined["clean_pred"]).astype("Int64")
    taken = pred.astype("string").mask(pred == -1, NO_CLASS).where(np.isfinite(joined["distance"]), UNBROKEN)
    taken = taken.mask((joined["errors"] > 0) & (taken == UNBROKEN), UNKNOWN)
    pairs = pd.DataFrame({"label": joined["label"], "taken": taken})
    counts = pairs.value_counts(["label", "taken"], sort=False).rename("count").reset_index()
    counts["share"] = counts["count"] / counts.groupby("label")["count"].transform("sum")
    return counts.astype({"label": "string"})


def _of_norm(records: pd.DataFrame, meta: dict[str, Any], norm: str) -> Chart:
    labels = [model["label"] for model in meta["models"]]
    values = [
        {
            "model": label,
            "label": row["label"],
            "taken": row["taken"],
            "count": int(row["count"]),
            "share": round(row["share"], 4),
        }
        for label in labels
        for row in confusion(records, label, norm).to_dict(orient="records")
    ]
    classes = [str(k) for k in range(max(model["classes"] for model in meta["models"]))]
    others = {value["taken"] for value in values}
    columns = [*classes, *(name for name in (NO_CLASS, UNBROKEN, UNKNOWN) if name in others)]
    text = (
        f"For each class, the share of its samples whose nearest {norm_name(norm)} adversarial, of all attacks and "
        f"budgets, is taken for which class; misclassified samples by their clean prediction; {UNBROKEN}: not broken."
    )
    return Chart(
        name=f"confusion_{norm}",
        title=f"Confusion under attack, {norm_name(norm)}",
        caption=captions.caption(records, meta, text),
        spec=_spec(values, classes, columns),
        choices={"model": labels},
        panels="model",
        height=max(120, min(20 * len(classes), 480)),
    )


def _spec(values: list[dict[str, Any]], classes: list[str], columns: list[str]) -> dict[str, Any]:
    tooltip = [
        {"field": "model", "type": "nominal"},
        {"field": "label", "type": "nominal", "title": "class"},
        {"field": "taken", "type": "nominal", "title": "taken for"},
        {"field": "count", "type": "quantitative", "title": "samples"},
        {"field": "share", "type": "quantitative", "title": "of its class", "format": ".1%"},
    ]
    shade = {"field": "share", "type": "quantitative", "title": "share", "scale": {"scheme": "blues", "domain": [0, 1]}}
    layers: list[dict[str, Any]] = [
        {"mark": "rect", "encoding": {"color": {**shade, "legend": {"format": ".0%", "gradientLength": 120}}}}
    ]
    if len(classes) <= _NUMBERS:
        ink = {"condition": {"test": "datum.share > 0.5", "value": "white"}, "value": "#1f2933"}
        mark = {"type": "text", "fontSize": 10, "aria": False}
        layers.append({"mark": mark, "encoding": {"text": {"field": "count"}, "color": ink}})
    return {
        "data": table(values),
        "transform": [chosen("model")],
        "encoding": {
            "x": _axis("taken", "taken for", columns),
            "y": _axis("label", "class", classes),
            "tooltip": tooltip,
        },
        "layer": layers,
    }


def _axis(name: str, title: str, values: list[str]) -> dict[str, Any]:
    axis = {"labelAngle": 0, "domain": False, "ticks": False}
    return {"field": name, "type": "nominal", "sort": values, "scale": {"domain": values}, "title": title, "axis": axis}
