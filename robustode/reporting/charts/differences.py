"""The paired differences of robust accuracy between models, as dots with their intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robustode.reporting import captions
from robustode.reporting.charts.chart import Chart, colour, table
from robustode.reporting.compare import paired_accuracy
from robustode.reporting.formatting import eps_label, norm_name

_TEXT = (
    "Robust accuracy of the first model minus that of the second on the same samples, in percentage points (worst case "
    "of all attacks), with 95 % intervals for paired proportions. p: exact McNemar test; p (Holm): corrected for all "
    "tests of the table."
)


def difference_charts(records: pd.DataFrame, meta: dict[str, Any]) -> list[Chart]:
    """Return the differences of robust accuracy for each norm; nothing for a run of one model."""
    if len(meta["models"]) < 2:
        return []
    return [_of_norm(table.frame, records, meta, norm) for norm, table in paired_accuracy(records, meta).items()]


def _of_norm(frame: pd.DataFrame, records: pd.DataFrame, meta: dict[str, Any], norm: str) -> Chart:
    known = pd.DataFrame(frame[frame["estimate"].notna()])
    values = [
        {
            "pair": f"{row['first']} − {row['second']}",
            "eps": "clean" if row["eps"] == 0 else f"ε = {eps_label(row['eps'])}",
            **{name: round(100 * row[name], 3) for name in ("estimate", "lo", "hi")},
            **{name: float(f"{row[name]:.4g}") for name in ("p", "p_holm")},
        }
        for row in known.to_dict(orient="records")
    ]
    pairs = list(dict.fromkeys(value["pair"] for value in values))
    epses = list(dict.fromkeys(value["eps"] for value in values))
    return Chart(
        name=f"differences_{norm}",
        title=f"Differences of robust accuracy, {norm_name(norm)}",
        caption=captions.caption(records, meta, _TEXT),
        spec=_spec(values, pairs, epses),
        height=max(80, 14 * len(pairs) * len(epses) + 16 * len(epses)),
    )


def _spec(values: list[dict[str, Any]], pairs: list[str], epses: list[str]) -> dict[str, Any]:
    tooltip = [
        {"field": "pair", "type": "nominal", "title": "models"},
        {"field": "eps", "type": "nominal", "title": "at"},
        {"field": "estimate", "type": "quantitative", "title": "difference (points)", "format": "+.1f"},
        {"field": "lo", "type": "quantitative", "title": "from", "format": "+.1f"},
        {"field": "hi", "type": "quantitative", "title": "to", "format": "+.1f"},
        {"field": "p", "type": "quantitative", "title": "McNemar p", "format": ".2~g"},
        {"field": "p_holm", "type": "quantitative", "title": "p (Holm)", "format": ".2~g"},
    ]
    x = {"type": "quantitative", "title": "difference in percentage points", "axis": {"tickCount": 6}}
    own = {
        "y": {"field": "eps", "type": "nominal", "sort": epses, "title": None},
        "yOffset": {"field": "pair", "type": "nominal", "sort": pairs},
        "color": colour("pair", pairs, symbolType="circle", symbolSize=70, columns=1),
        "tooltip": tooltip,
    }
    ends = {"x": {**x, "field": "lo"}, "x2": {"field": "hi"}}
    return {
        "data": table(values),
        "layer": [
            {"mark": {"type": "rule", "color": "#808080"}, "encoding": {"x": {"datum": 0, **x}}},
            {"mark": {"type": "rule", "size": 2}, "encoding": {**own, **ends}},
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                "encoding": {**own, "x": {**x, "field": "estimate"}},
            },
        ],
    }
