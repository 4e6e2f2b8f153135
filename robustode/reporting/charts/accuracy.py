"""Robust accuracy against ε, of the worst case or of one attack, with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from robustode.evaluation.examination import claimed, is_audit
from robustode.evaluation.records import rows
from robustode.evaluation.statistics import wilson_bounds
from robustode.evaluation.worst_case import WorstCase, worst_case
from robustode.reporting import captions, layout
from robustode.reporting.charts.chart import Chart, chosen, colour, dash, hover, only_shown, table
from robustode.reporting.formatting import norm_name

_POINTS = 90  # of a curve
_QUANTILE = 0.98  # of the finite distances, where the axis ends


def accuracy_charts(records: pd.DataFrame, meta: dict[str, Any]) -> list[Chart]:
    """Return robust accuracy against ε for each norm: a curve with Wilson band per model, markers at the budgets."""
    return [_of_norm(records, meta, norm) for norm in layout.norms(records, meta) if layout.has(records, norm)]


def _of_norm(records: pd.DataFrame, meta: dict[str, Any], norm: str) -> Chart:
    own, epses, models = claimed(records), layout.budgets(meta, norm), meta["models"]
    cases: dict[str, list[WorstCase]] = {}
    if any(is_audit(name) for name in records["attack"].unique()):
        cases[layout.AFTER_AUDIT] = [worst_case(records, model, norm) for model in models]
    cases[layout.ALL_ATTACKS] = [worst_case(own, model, norm) for model in models]
    for attack in layout.attacks(records, meta, norm):
        cases[attack] = [worst_case(own, model, norm, attack=attack) for model in models]
    end = axis_end(rows(records, norm=norm), next(iter(cases.values())), epses)
    values = [
        row
        for attack, of_models in cases.items()
        for model, case in zip(models, of_models, strict=True)
        for row in _curve(model["label"], attack, case, epses, end)
    ]
    labels = [model["label"] for model in models]
    text = (
        f"Robust accuracy against the {norm_name(norm)} budget ε; markers at ε = 0 and at the budgets of the run, "
        "bands: pointwise 95 % Wilson intervals (sampling of test points only)."
    )
    incomplete = [
        f"{label}: {count} incomplete"
        for label, case in zip(labels, next(iter(cases.values())), strict=True)
        if (count := int(case.incomplete(0.0).sum()))
    ]
    said = f"Of {', '.join(incomplete)} samples it is not known whether they are robust." if incomplete else ""
    return Chart(
        name=f"robust_accuracy_{norm}",
        title=f"Robust accuracy, {norm_name(norm)}",
        caption=captions.caption(records, meta, text, _between(records, norm), said),
        spec=_spec(values, labels, f"{norm_name(norm)} budget ε", end),
        models=labels,
        choices={"attack": list(cases)},
    )


def _curve(label: str, attack: str, case: WorstCase, epses: Sequence[float], end: float) -> list[dict[str, Any]]:
    marked = {0.0, *epses}
    grid = sorted({float(f"{eps:.6g}") for eps in np.linspace(0.0, end, _POINTS)} | marked)
    n = len(case.samples)
    robust = [int(case.robust(eps).sum()) for eps in grid]
    lo, hi = (np.round(ends, 4).tolist() for ends in wilson_bounds(robust, n))
    rows = zip(grid, robust, lo, hi, strict=True)
    return [
        {
            "model": label,
            "attack": attack,
            "eps": eps,
            "p": round(count / n, 4),
            "lo": low,
            "hi": high,
            "budget": int(eps in marked),
        }
        for eps, count, low, high in rows
    ]


def _spec(values: list[dict[str, Any]], labels: list[str], xlabel: str, end: float) -> dict[str, Any]:
    x = {"field": "eps", "type": "quantitative", "title": xlabel, "axis": {"tickCount": 6}}
    y = {"field": "p", "type": "quantitative", "title": "robust accuracy", "axis": {"format": ".0%", "tickCount": 6}}
    y["scale"] = {"domain": [0, 1]}
    interval = "format(datum.lo, '.1%') + ' – ' + format(datum.hi, '.1%')"
    said = (("model", "model", ""), ("attack", "attack", ""), ("eps", "ε", ".4~g"))
    said += (("p", "robust accuracy", ".1%"), ("interval", "95 % interval", ""))
    return {
        "data": table(values),
        "transform": [only_shown(), chosen("attack"), {"calculate": interval, "as": "interval"}],
        "encoding": {"x": x | {"scale": {"domain": [0, end], "nice": False}}, "color": colour("model", labels)},
        "layer": [
            {"mark": {"type": "area", "opacity": 0.15}, "encoding": {"y": {**y, "field": "lo"}, "y2": {"field": "hi"}}},
            {
                "mark": {"type": "line", "strokeWidth": 1.8},
                "encoding": {"y": y, "strokeDash": dash("model", labels)},
            },
            {
                "transform": [{"filter": "datum.budget == 1"}],
                "mark": {"type": "point", "filled": True, "size": 40, "opacity": 1},
                "encoding": {"y": y},
            },
            hover(y, *said),
        ],
    }


def _between(records: pd.DataFrame, norm: str) -> str:
    if len(rows(records, norm=norm, eps=None)):
        return ""
    return "No minimal-norm attack was run: between the markers the curve is an upper bound only."


def axis_end(own: pd.DataFrame, cases: Iterable[WorstCase], epses: Sequence[float]) -> float:
    """End of the ε axis: past the last budget, and past nearly every distance where minimal norms are known."""
    ends = [1.04 * max(epses, default=0.0)]
    if len(rows(own, eps=None)):
        finite = [case.distance[np.isfinite(case.distance)] for case in cases]
        ends += [float(np.quantile(values, _QUANTILE)) for values in finite if len(values)]
    return float(f"{max(ends) or 1.0:.6g}")
