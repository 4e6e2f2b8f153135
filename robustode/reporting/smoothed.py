"""The table of certificates of smoothed models, apart from everything that is said of the models themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from robustode.attacks.norms import ball_tolerance
from robustode.evaluation import records as records_file
from robustode.evaluation.records import rows
from robustode.evaluation.statistics import Estimate, censored_median, clopper_pearson
from robustode.reporting import captions
from robustode.reporting.formatting import eps_label, interval, percent
from robustode.reporting.tables import Table

_TEXT = (
    "Certificates of the smoothed model, which answers with the class that the model gives most often under Gaussian "
    "noise of the input (σ in raw-input units): not of the model itself, so they stand in no interval and no check. "
    "Each holds with probability 1 − α, α = {alpha:g}, over the {draws} draws of its sample; where they do not decide, "
    "the smoothed model abstains. Certified at ε (L2): the smoothed model answers with the label, and so it does for "
    "all inputs at a distance ≤ ε + τ. Median radius over all samples, 0 where it abstains or is wrong. Brackets: 95 % "
    "intervals, Clopper–Pearson's (shares) and from order statistics (medians), for the sampling of test points."
)


def smoothed_tables(smoothed: pd.DataFrame | None, meta: dict[str, Any]) -> list[Table]:
    """Return the table of `smoothed.parquet`; nothing for a run without it.

    Columns of the numbers: model, sigma, eps (0: accuracy of the smoothed model), estimate, lo, hi, count, n,
    abstained, median, median_lo, median_hi.
    """
    if smoothed is None or smoothed.empty:
        return []
    frame, display = [], []
    for model in meta["models"]:
        own = rows(smoothed, model=model["label"])
        found, cells = _of_model(model, own, [float(eps) for eps in meta["smoothed"]["l2"]])
        frame += found
        display.append(cells)
    first = smoothed.iloc[0]
    return [
        Table(
            name="smoothed",
            title="Certificates of the smoothed model (not of the model), L2",
            caption=captions.caption(
                records_file.empty(), meta, _TEXT.format(alpha=float(first["alpha"]), draws=int(first["draws"]))
            ),
            frame=pd.DataFrame(frame),
            display=pd.DataFrame(display),
            group=None,
        )
    ]


def _of_model(
    model: dict[str, Any], own: pd.DataFrame, epses: list[float]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    right = (own["prediction"] == own["label"]).to_numpy(dtype=bool)
    radius = np.where(right, own["radius"].to_numpy(dtype=float), 0.0)
    n, abstained = len(own), sum((own["prediction"] == -1).tolist())
    median = censored_median(radius)
    sigma = float(own["sigma"].iloc[0])
    fixed = {"model": f"{model['label']} (smoothed)", "sigma": sigma}
    ends = {"median": median.value, "median_lo": median.lo, "median_hi": median.hi}
    box, dimension = (float(model["bounds"][0]), float(model["bounds"][1])), int(np.prod(model["input_shape"]))
    frame, cells = [], {}
    for eps in (0.0, *epses):
        held = right & (radius > eps + ball_tolerance(eps, box, dimension, "l2")) if eps else right
        made = clopper_pearson(int(held.sum()), n)
        numbers = {"estimate": made.value, "lo": made.lo, "hi": made.hi, "count": int(held.sum()), "n": n}
        frame.append({**fixed, "eps": eps, **numbers, "abstained": abstained, **ends})
        cells[f"ε = {eps_label(eps)}" if eps else "accuracy"] = percent(made)
    shown = Estimate(value=median.value, lo=median.lo or 0.0, hi=median.hi)
    head = {"model": fixed["model"], "σ": f"{sigma:g}", "abstains": percent(clopper_pearson(abstained, n))}
    return frame, {**head, **cells, "median radius": interval(shown)}
