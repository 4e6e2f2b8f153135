"""Sensitivity along depth: how much a perturbation has grown, and how far a disturbance still moves the margin."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robustode.evaluation.depth import GROWTH, REACH, SPREAD
from robustode.reporting.charts.chart import Chart, colour, dash, hover, only_shown, table

_SAID = {
    GROWTH: (
        "Growth along depth",
        "‖ξ(t)‖ / ‖ξ(0)‖",
        "How much a small perturbation of the input, in the direction that lowers the margin fastest, has grown at "
        "depth t: ‖ξ(t)‖ / ‖ξ(0)‖, ξ the solution of the sensitivity problem.",
    ),
    REACH: (
        "Reach along depth",
        "‖λ(t)‖ / ‖λ(T)‖",
        "How far a disturbance of the state at depth t moves the margin, relative to one of the output: ‖λ(t)‖ / "
        "‖λ(T)‖, λ the solution of the adjoint problem.",
    ),
    SPREAD: (
        "Uncertainty along depth",
        "√tr Cov[z(t)]",
        "How far input noise of the run's largest σ spreads, at depth t, the components of the state that are the "
        "logits at the end: √tr Cov[z(t)], in logits, by linear propagation.",
    ),
}


def depth_charts(depth: pd.DataFrame | None, meta: dict[str, Any]) -> list[Chart]:
    """Return a chart for each quantity of `depth.parquet`; nothing for a run without an sNODE on a fixed grid."""
    if depth is None:
        return []
    parts = {quantity: pd.DataFrame(depth[depth["quantity"] == quantity]) for quantity in _SAID}
    return [_of(quantity, rows, meta) for quantity, rows in parts.items() if len(rows)]


def _of(quantity: str, rows: pd.DataFrame, meta: dict[str, Any]) -> Chart:
    title, ylabel, text = _SAID[quantity]
    everyone = [model["label"] for model in meta["models"]]
    labels = [label for label in everyone if label in set(rows["model"])]
    left = [label for label in everyone if label not in labels]
    counts = ", ".join(f"{label} {n}" for label, n in rows.groupby("model", sort=False)["n"].first().items())
    absent = f" Not here: {', '.join(left)} (no sNODE on a fixed grid)." if left else ""
    numbers = ("depth", "median", "lo", "hi")
    values = [
        {"model": model, **{name: float(f"{number:.5g}") for name, number in zip(numbers, row, strict=True)}}
        for model, *row in rows[["model", *numbers]].itertuples(index=False, name=None)
    ]
    return Chart(
        name=f"depth_{quantity}",
        title=title,
        caption=f"{text} Lines: median, bands: quartiles over correctly classified samples ({counts}).{absent}",
        spec=_spec(values, labels, everyone, ylabel),
        models=labels,
    )


def _spec(values: list[dict[str, Any]], labels: list[str], everyone: list[str], ylabel: str) -> dict[str, Any]:
    x = {
        "field": "depth",
        "type": "quantitative",
        "title": "depth t",
        "axis": {"tickCount": 6},
        "scale": {"nice": False},
    }
    y = {"field": "median", "type": "quantitative", "title": ylabel, "axis": {"tickCount": 6}, "scale": {"zero": True}}
    ends = (("lo", "lower quartile", ".3~g"), ("hi", "upper quartile", ".3~g"))
    return {
        "data": table(values),
        "transform": [only_shown()],
        "encoding": {"x": x, "color": colour("model", labels, everyone)},
        "layer": [
            {"mark": {"type": "area", "opacity": 0.15}, "encoding": {"y": {**y, "field": "lo"}, "y2": {"field": "hi"}}},
            {
                "mark": {"type": "line", "strokeWidth": 1.8},
                "encoding": {"y": y, "strokeDash": dash("model", labels, everyone)},
            },
            hover(y, ("model", "model", ""), ("depth", "depth t", ".3~g"), ("median", "median", ".3~g"), *ends),
        ],
    }
