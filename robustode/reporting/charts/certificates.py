"""The band between certified and attacked accuracy against ε, in which the robust accuracy lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from robustode.evaluation.certified_case import CertifiedCase, certified_case
from robustode.evaluation.records import rows
from robustode.evaluation.worst_case import WorstCase, worst_case
from robustode.reporting import captions, layout
from robustode.reporting.charts.accuracy import axis_end
from robustode.reporting.charts.chart import Chart, chosen, colour, dash, hover, only_shown, table
from robustode.reporting.formatting import norm_name

_POINTS = 90  # of a curve, and as many where there are certified radii
_BAND = (
    "Certified accuracy (lower edge, thick) and accuracy under all attacks of the run and its audit (upper edge, thin) "
    "against the {norm} budget ε, markers at the budgets of the run. The robust accuracy lies in the band between: "
    "no certificate covers its samples and no attack breaks them. Stronger attacks narrow it from above, tighter "
    "bounds from below."
)
_LOWER = (
    "Certified accuracy against the {norm} budget ε, markers at the budgets of the run; no attack of this norm was run."
)
_FLOW = "Certified: the solution of the ODE (flow), not the discrete map that was attacked, so the edges may cross."


def certificate_charts(certificates: pd.DataFrame | None, records: pd.DataFrame, meta: dict[str, Any]) -> list[Chart]:
    """Return the band of each norm of `certificates.parquet`; nothing for a run without it."""
    if certificates is None or certificates.empty:
        return []
    return [_of_norm(certificates, records, meta, norm) for norm in dict.fromkeys(certificates["norm"])]


def _of_norm(certificates: pd.DataFrame, records: pd.DataFrame, meta: dict[str, Any], norm: str) -> Chart:
    labels = [model["label"] for model in meta["models"]]
    lower = [certified_case(certificates, model, norm) for model in meta["models"]]
    upper = [worst_case(records, model, norm) for model in meta["models"]] if layout.has(records, norm) else []
    epses = sorted(float(eps) for eps in meta["certified"].get(norm, []))
    end = _end(lower, upper, records, norm, epses)
    near = min(end, 1.02 * max(float(case.radius[np.isfinite(case.radius)].max(initial=0.0)) for case in lower))
    points = np.concatenate([np.linspace(0.0, end, _POINTS), np.linspace(0.0, near, _POINTS)])
    grid = sorted({float(f"{eps:.6g}") for eps in points} | set(epses))
    values = [
        row
        for i, model in enumerate(meta["models"])
        for row in _curves(model, lower[i], upper[i] if upper else None, [eps for eps in grid if eps <= end], epses)
    ]
    text = (_BAND if upper else _LOWER).format(norm=norm_name(norm))
    flow = upper and any(case.certifies == "flow" for case in lower)
    return Chart(
        name=f"certified_accuracy_{norm}",
        title=f"Certified {'and attacked ' if upper else ''}accuracy, {norm_name(norm)}",
        caption=captions.caption(records, meta, text, _FLOW if flow else ""),
        spec=_spec(values, labels, f"{norm_name(norm)} budget ε", end, bool(upper)),
        models=() if upper else labels,
        choices={"model": labels} if upper else {},  # bands that lie on each other cannot be read
        panels="model" if upper else None,
    )


def _end(
    lower: list[CertifiedCase], upper: list[WorstCase], records: pd.DataFrame, norm: str, epses: list[float]
) -> float:
    """End of the ε axis: that of the curves of the attacks, else past nearly every certified radius."""
    if upper:
        return axis_end(rows(records, norm=norm), upper, epses)
    radii = np.concatenate([case.radius[np.isfinite(case.radius)] for case in lower])
    largest = float(np.quantile(radii, 0.98)) if len(radii) else 0.0
    return float(f"{1.04 * largest or max(epses, default=1.0):.6g}")


def _curves(
    model: dict[str, Any], lower: CertifiedCase, upper: WorstCase | None, grid: list[float], epses: list[float]
) -> list[dict[str, Any]]:
    n = int(model["n"])
    found = []
    for eps in grid:
        row = {"model": model["label"], "eps": eps, "certified": round(int(lower.certified(eps).sum()) / n, 4)}
        if upper is not None:
            row["attacked"] = round(int(upper.robust(eps).sum()) / n, 4)
        found.append({**row, "budget": int(eps in epses)})
    return found


def _spec(values: list[dict[str, Any]], labels: list[str], xlabel: str, end: float, both: bool) -> dict[str, Any]:
    x = {"field": "eps", "type": "quantitative", "title": xlabel, "axis": {"tickCount": 6}}
    y: dict[str, Any] = {"type": "quantitative", "title": "accuracy", "axis": {"format": ".0%", "tickCount": 6}}
    y["scale"] = {"domain": [0, 1]}
    lower, upper = {**y, "field": "certified"}, {**y, "field": "attacked"}
    said = (("model", "model", ""), ("eps", "ε", ".4~g"), ("certified", "certified", ".1%"))
    said += (("attacked", "attacked", ".1%"),) if both else ()
    hue, lines = colour("model", labels), {"strokeDash": dash("model", labels)}
    if both:  # one model at a time: a panel or a menu says which
        hue, lines = hue if len(labels) == 1 else hue | {"legend": None}, {}
    layers: list[dict[str, Any]] = []
    if both:
        area = {"type": "area", "opacity": 0.22}
        layers.append({"mark": area, "encoding": {"y": lower, "y2": {"field": "attacked"}}})
        layers.append({"mark": {"type": "line", "strokeWidth": 1}, "encoding": {"y": upper, **lines}})
    layers.append({"mark": {"type": "line", "strokeWidth": 2.4}, "encoding": {"y": lower, **lines}})
    marked = [{"filter": "datum.budget == 1"}]
    point = {"type": "point", "filled": True, "size": 36, "opacity": 1}
    layers += [
        {"transform": marked, "mark": point, "encoding": {"y": edge}} for edge in ((lower, upper) if both else (lower,))
    ]
    return {
        "data": table(values),
        "transform": [chosen("model") if both else only_shown()],
        "encoding": {"x": x | {"scale": {"domain": [0, end], "nice": False}}, "color": hue},
        "layer": [*layers, hover(lower, *said)],
    }
