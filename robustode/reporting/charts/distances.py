"""The distribution of minimal distances: the share of samples that each attack breaks within a distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from robustode.evaluation.records import rows
from robustode.evaluation.worst_case import WorstCase, worst_case
from robustode.reporting import captions, layout
from robustode.reporting.charts.accuracy import axis_end
from robustode.reporting.charts.chart import Chart, chosen, colour, dash, hover, table
from robustode.reporting.formatting import norm_name

_POINTS = 150  # of a curve, at most


def distance_charts(records: pd.DataFrame, meta: dict[str, Any]) -> list[Chart]:
    """Return the share of samples broken within a distance, for each norm with minimal-norm rows: a curve an attack."""
    minimal = rows(records, eps=None)
    return [_of_norm(minimal, meta, norm) for norm in layout.norms(minimal, meta) if layout.has(minimal, norm)]


def _of_norm(minimal: pd.DataFrame, meta: dict[str, Any], norm: str) -> Chart:
    attacks, labels = layout.attacks(minimal, meta, norm), [model["label"] for model in meta["models"]]
    cases = {(m["label"], a): worst_case(minimal, m, norm, attack=a) for m in meta["models"] for a in attacks}
    end = axis_end(rows(minimal, norm=norm), cases.values(), [])
    values = [row for (label, attack), case in cases.items() for row in _steps(label, attack, case, end)]
    text = (
        f"Share of samples that each minimal-norm attack breaks within an {norm_name(norm)} distance; higher is the "
        "stronger attack. Misclassified samples are broken at 0; a curve that ends below 100 % left samples unbroken."
    )
    return Chart(
        name=f"distances_{norm}",
        title=f"Minimal distances, {norm_name(norm)}",
        caption=captions.caption(minimal, meta, text),
        spec=_spec(values, attacks, f"{norm_name(norm)} distance", end),
        choices={"model": labels},
        panels="model",
    )


def _steps(label: str, attack: str, case: WorstCase, end: float) -> list[dict[str, Any]]:
    """The corners of the empirical distribution function up to the end of the axis, thinned."""
    distance = np.sort(case.distance)
    share = np.arange(1, len(distance) + 1) / len(distance)
    inside = distance <= end
    x, y = distance[inside], share[inside]
    keep = np.unique(np.linspace(0, len(x) - 1, min(_POINTS, len(x))).round().astype(int)) if len(x) else []
    last = float(y[-1]) if len(y) else 0.0
    corners = [(0.0, 0.0), *zip(x[keep].tolist(), y[keep].tolist(), strict=True), (end, last)]
    return [
        {"model": label, "attack": attack, "distance": float(f"{at:.5g}"), "share": round(height, 5)}
        for at, height in corners
    ]


def _spec(values: list[dict[str, Any]], attacks: list[str], xlabel: str, end: float) -> dict[str, Any]:
    x = {"field": "distance", "type": "quantitative", "title": xlabel, "axis": {"tickCount": 6}}
    y = {"field": "share", "type": "quantitative", "title": "samples broken", "axis": {"format": ".0%", "tickCount": 6}}
    y["scale"] = {"domain": [0, 1]}
    said = (("model", "model", ""), ("attack", "attack", ""), ("distance", "distance", ".4~g"))
    return {
        "data": table(values),
        "transform": [chosen("model")],
        "encoding": {"x": x | {"scale": {"domain": [0, end], "nice": False}}, "color": colour("attack", attacks)},
        "layer": [
            {
                "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.8, "clip": True},
                "encoding": {"y": y, "strokeDash": dash("attack", attacks)},
            },
            hover(y, *said, ("share", "samples broken", ".1%")),
        ],
    }
