"""Tables of accuracy under noise: predicted beside measured, calibration, and the samples that are most at risk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from robustode.evaluation import records
from robustode.evaluation.calibration import expected_calibration_error
from robustode.evaluation.noise import DRAWN
from robustode.evaluation.noise_rows import TIMED
from robustode.evaluation.records import rows
from robustode.evaluation.statistics import Estimate
from robustode.reporting import captions
from robustode.reporting.formatting import NONE, number, percent
from robustode.reporting.tables import Table

RISK = 10  # samples of each model that are named as most at risk
_ACCURACY = (
    "Mean probability of a right answer under Gaussian noise of the input (σ in raw-input units, not clipped)"
    "{weights}: predicted by propagating the moments of the logits, for all samples and for those that were drawn; "
    "measured by {draws} Monte Carlo draws of each of these, ± its standard error{shared}, which covers the draws "
    "alone. |ΔP|: difference of predicted and measured probability, mean over the drawn samples (largest). ECE: "
    "expected calibration error, ten bins of the predicted probability. Linear valid: share of samples in which linear "
    "propagation and sigma points agree within 10 % about the decisive margin. Time: of the method with its "
    "probabilities for each sample, all σ together, relative to 100 draws."
)
_RISK = (
    "The {n} samples of each model with the smallest effective margin at σ = {sigma:g}{weights}: margin to the class "
    "that it is most uncertain to, over its standard deviation."
)


def noise_tables(noise: pd.DataFrame | None, meta: dict[str, Any], timings: pd.DataFrame | None) -> list[Table]:
    """Return the tables of `uncertainty.parquet`; nothing for a run without it.

    Columns of the numbers: model, sigma, weights, method, predicted, n, predicted_drawn, measured, standard_error,
    drawn, dp_mean, dp_max, ece, linear_valid, time_ratio; and sample, label, other, p_correct, effective_margin,
    margin, std of the samples at risk.
    """
    if noise is None or noise.empty:
        return []
    return [_accuracy(noise, meta, timings), _at_risk(noise, meta)]


def _accuracy(noise: pd.DataFrame, meta: dict[str, Any], timings: pd.DataFrame | None) -> Table:
    frame = []
    for model in meta["models"]:
        own = rows(noise, model=model["label"])
        for sigma in sorted(set(own["sigma"].tolist())):
            level = rows(own, sigma=sigma)
            weights = level["weights"].tolist()[0]
            drawn = rows(level, method=DRAWN).set_index("sample")
            for method in dict.fromkeys(level["method"]):
                if method != DRAWN:
                    who = {"model": model["label"], "sigma": sigma, "weights": weights, "method": method}
                    found = _method(rows(level, method=method).set_index("sample"), drawn, shared=weights != "none")
                    ratio = _ratio(timings, model["label"], method, drawn)
                    frame.append({**who, **found, "time_ratio": ratio})
    draws = noise["draws"].dropna()
    kind = _weights(noise)
    shared = " (its upper bound, as drawn weights are shared between samples)" if kind else ""
    text = _ACCURACY.format(weights=kind, shared=shared, draws=int(draws.tolist()[0]) if len(draws) else "no")
    return Table(
        name="noise_accuracy",
        title="Accuracy under noise",
        caption=captions.caption(records.empty(), meta, text),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame([_shown(row) for row in frame]),
    )


def _method(own: pd.DataFrame, drawn: pd.DataFrame, *, shared: bool) -> dict[str, Any]:
    """Numbers of one method at one level: predicted for all, and compared with the draws where there are any.

    Drawn weights are shared between samples, whose errors then go together: the mean of the standard errors is the
    most that the standard error of the mean can be.
    """
    valid = own["linear_valid"].dropna()
    found: dict[str, Any] = {
        "predicted": float(np.mean(own["p_correct"].to_numpy())),
        "n": len(own),
        "linear_valid": float(np.mean(valid.to_numpy(dtype=float))) if len(valid) else None,
    }
    nothing = ("predicted_drawn", "measured", "standard_error", "dp_mean", "dp_max", "ece")
    if drawn.empty:
        return {**found, **dict.fromkeys(nothing), "drawn": 0}
    predicted = own.loc[drawn.index, "p_correct"].to_numpy(dtype=float)
    measured, error = (drawn[name].to_numpy(dtype=float) for name in ("p_correct", "p_error"))
    gap = np.abs(predicted - measured)
    return {
        **found,
        "predicted_drawn": float(predicted.mean()),
        "measured": float(measured.mean()),
        "standard_error": float(error.mean() if shared else np.sqrt((error**2).sum()) / len(error)),
        "drawn": len(drawn),
        "dp_mean": float(gap.mean()),
        "dp_max": float(gap.max()),
        "ece": expected_calibration_error(predicted, measured),
    }


def _ratio(timings: pd.DataFrame | None, model: str, method: str, drawn: pd.DataFrame) -> float | None:
    """Seconds a sample of a method over those of 100 draws of it, over all levels of a model."""
    if timings is None or drawn.empty:
        return None
    own, others = (rows(timings, model=model, attack=f"{TIMED}{name}") for name in (method, DRAWN))
    if own.empty or others.empty:
        return None
    each = [sum(part["seconds"].tolist()) / sum(part["samples"].tolist()) for part in (own, others)]
    return each[0] / (each[1] * 100 / float(drawn["draws"].to_numpy(dtype=float)[0]))


def _shown(row: dict[str, Any]) -> dict[str, str]:
    def share(name: str) -> str:
        return NONE if row[name] is None else percent(Estimate(value=row[name], lo=None, hi=None))

    measured = NONE
    if row["measured"] is not None:
        measured = f"{100 * row['measured']:.2f} ± {100 * row['standard_error']:.2f} %"
    gap = NONE if row["dp_mean"] is None else f"{row['dp_mean']:.4f} ({row['dp_max']:.3f})"
    level = f"{row['sigma']:g}" + ("" if row["weights"] == "none" else f", {row['weights']}")
    return {
        "model": row["model"],
        "σ": level,
        "method": row["method"],
        "predicted, all": share("predicted"),
        "predicted, drawn": share("predicted_drawn"),
        "measured": measured,
        "|ΔP|": gap,
        "ECE": NONE if row["ece"] is None else f"{row['ece']:.4f}",
        "linear valid": share("linear_valid"),
        "time": NONE if row["time_ratio"] is None else number(row["time_ratio"]),
    }


def _at_risk(noise: pd.DataFrame, meta: dict[str, Any]) -> Table:
    first = next(method for method in noise["method"] if method != DRAWN)
    sigma = max(noise["sigma"].tolist())
    columns = ["model", "sample", "label", "other", "p_correct", "effective_margin", "margin", "std"]
    level = rows(noise, method=first, sigma=sigma)
    parts = [
        rows(level, model=model["label"]).sort_values(["effective_margin", "sample"], kind="stable").head(RISK)
        for model in meta["models"]
    ]
    frame = pd.concat(parts, ignore_index=True)[columns]
    shown = [
        {
            "model": str(row["model"]),
            "sample": str(row["sample"]),
            "class": str(row["label"]),
            "at risk of": str(row["other"]),
            "P(correct)": f"{row['p_correct']:.3f}",
            "effective margin": number(row["effective_margin"], sign=True),
            "margin": number(row["margin"], sign=True),
            "std": number(row["std"]),
        }
        for row in pd.DataFrame(frame).to_dict(orient="records")
    ]
    text = _RISK.format(n=RISK, sigma=sigma, weights=_weights(noise))
    return Table(
        name="noise_at_risk",
        title="Samples most at risk under noise",
        caption=captions.caption(records.empty(), meta, text),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame(shown),
    )


def _weights(noise: pd.DataFrame) -> str:
    kind = str(noise["weights"].iloc[0])
    said = {"none": "", "int8": " and the rounding of the weights to 8 bits"}
    return said.get(kind, f" and of the weights (σ = {kind})")
