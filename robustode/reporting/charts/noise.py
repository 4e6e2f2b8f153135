"""Charts of accuracy under noise: reliability of the predicted probabilities, and the samples most at risk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from robustode.evaluation import records
from robustode.evaluation.calibration import binned
from robustode.evaluation.noise import DRAWN
from robustode.evaluation.records import rows
from robustode.reporting import captions
from robustode.reporting.charts.chart import Chart, chosen, colour, dash, hover, only_shown, table

_RISKIEST, _POINTS = 100, 100  # samples of a curve: those most at risk, and of the rest
_RELIABILITY = (
    "Measured against predicted probability of a right answer under noise: samples in ten bins of the predicted one, "
    "mean of each; on the diagonal the prediction is calibrated. Measured by Monte Carlo draws."
)
_RISK = (
    "Every sample's probability of a right answer under the largest noise, from those most at risk to the safest: "
    "where the curve is low, noise decides the answer. Method: {method}."
)


def noise_charts(noise: pd.DataFrame | None, meta: dict[str, Any]) -> list[Chart]:
    """Return the charts of `uncertainty.parquet`; nothing for a run without it."""
    if noise is None or noise.empty:
        return []
    labels = [model["label"] for model in meta["models"]]
    methods = [method for method in dict.fromkeys(noise["method"]) if method != DRAWN]
    sigmas = sorted(set(noise["sigma"].tolist()))
    charts = []
    points = [
        {"model": label, "method": method, "sigma": f"σ = {sigma:g}", **point}
        for label in labels
        for sigma in sigmas
        for method in methods
        for point in _bins(rows(noise, model=label, sigma=sigma), method)
    ]
    if points:
        charts.append(
            Chart(
                name="noise_reliability",
                title="Reliability under noise",
                caption=captions.caption(records.empty(), meta, _RELIABILITY),
                spec=_reliability(points, labels),
                models=labels,
                choices={"sigma": [f"σ = {sigma:g}" for sigma in reversed(sigmas)], "method": methods},
                panels="sigma",
            )
        )
    ranked = [
        {"model": label, "rank": round(rank, 5), "p": round(p, 4), "sample": sample}
        for label in labels
        for p, sample, rank in _ranked(rows(noise, model=label, sigma=sigmas[-1], method=methods[0]))
    ]
    charts.append(
        Chart(
            name="noise_at_risk",
            title=f"Samples at risk, σ = {sigmas[-1]:g}",
            caption=captions.caption(records.empty(), meta, _RISK.format(method=methods[0])),
            spec=_risk(ranked, labels),
            models=labels,
        )
    )
    return charts


def _bins(level: pd.DataFrame, method: str) -> list[dict[str, Any]]:
    drawn = rows(level, method=DRAWN).set_index("sample")
    if drawn.empty:
        return []
    predicted = rows(level, method=method).set_index("sample").loc[drawn.index, "p_correct"].to_numpy(dtype=float)
    measured = drawn["p_correct"].to_numpy(dtype=float)
    return [
        {"predicted": round(float(np.mean(p)), 4), "measured": round(float(np.mean(q)), 4), "n": len(p)}
        for p, q in binned(predicted, measured)
    ]


def _ranked(own: pd.DataFrame) -> list[tuple[float, int, float]]:
    """(P(correct), sample, rank in (0, 1)) of the samples most at risk, and of some of the others."""
    ordered = sorted(zip(own["p_correct"].tolist(), own["sample"].tolist(), strict=True))
    ranks = [(p, sample, (i + 0.5) / len(ordered)) for i, (p, sample) in enumerate(ordered)]
    rest = ranks[_RISKIEST:]
    return ranks[:_RISKIEST] + rest[:: max(1, len(rest) // _POINTS)]


def _reliability(points: list[dict[str, Any]], labels: list[str]) -> dict[str, Any]:
    both = {"type": "quantitative", "axis": {"format": ".0%", "tickCount": 6}, "scale": {"domain": [0, 1]}}
    x = {"field": "predicted", "title": "predicted P(correct)", **both}
    y = {"field": "measured", "title": "measured P(correct)", **both}
    said = (("model", "model", ""), ("predicted", "predicted", ".1%"), ("measured", "measured", ".1%"), ("n", "n", "d"))
    diagonal = {"values": [{"predicted": 0, "measured": 0}, {"predicted": 1, "measured": 1}]}
    line = {"type": "line", "color": "#808080", "strokeDash": [3, 3], "strokeWidth": 1}
    hue = colour("model", labels)
    return {
        "data": table(points),
        "transform": [only_shown(), chosen("sigma"), chosen("method")],
        "encoding": {"x": x, "y": y},
        "layer": [
            {"data": diagonal, "mark": line},
            {
                "mark": {"type": "line", "strokeWidth": 1.5},
                "encoding": {"color": hue, "strokeDash": dash("model", labels)},
            },
            {"mark": {"type": "point", "filled": True, "size": 45, "opacity": 1}, "encoding": {"color": hue}},
            hover(y, *said) | {"encoding": {**hover(y, *said)["encoding"], "color": hue}},
        ],
    }


def _risk(points: list[dict[str, Any]], labels: list[str]) -> dict[str, Any]:
    percent = {"format": ".0%", "tickCount": 6}
    x = {"field": "rank", "type": "quantitative", "title": "share of the samples", "axis": percent}
    y = {"field": "p", "type": "quantitative", "title": "P(correct)", "axis": percent, "scale": {"domain": [0, 1]}}
    said = (("model", "model", ""), ("sample", "sample", "d"), ("p", "P(correct)", ".1%"))
    return {
        "data": table(points),
        "transform": [only_shown()],
        "encoding": {"x": x | {"scale": {"domain": [0, 1]}}, "color": colour("model", labels)},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1.8}, "encoding": {"y": y, "strokeDash": dash("model", labels)}},
            hover(y, *said),
        ],
    }
