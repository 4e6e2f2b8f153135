"""The arms of a study side by side: accuracy, distances, noise, other grids; means over seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from robustode.evaluation.statistics import Estimate
from robustode.evaluation.study import Arm, StudyData
from robustode.evaluation.study_runner import StudyRun
from robustode.reporting.formatting import NONE, interval, norm_name, number
from robustode.reporting.study_frame import (
    MATCHED,
    SEEDS,
    arms,
    caption,
    column,
    coverage,
    norms,
    outcomes,
    over_seeds,
    pick,
    plans,
)
from robustode.reporting.tables import Table

_CENSORED = "Seeds whose median is not reached are left out of the mean."


def arms_tables(run: StudyRun) -> list[Table]:
    """Return, for each data set, accuracies and distances, then noise and training, with one row for each arm."""
    return [table for plan in plans(run) for table in (_arms(run, plan), _training(run, plan))]


def grids_tables(run: StudyRun) -> list[Table]:
    """Return, for each data set, accuracy, agreement and median distance at other numbers of Euler steps, by arm."""
    return [_grids(run, plan) for plan in plans(run)] if run.study.evaluation.steps else []


def _arms(run: StudyRun, plan: StudyData) -> Table:
    units, rows, cells = outcomes(run, plan.name), [], []
    for arm in arms(run, plan.name):
        own = pick(units, "arm", arm.name).sort_values("seed")
        row, cell = _accuracies(own, arm, plan)
        for norm in norms(run):
            mean = over_seeds(own[norm])
            row |= {norm: mean.value, f"{norm}.lo": mean.lo, f"{norm}.hi": mean.hi}
            row[f"{norm}.seeds"] = " ".join(f"{value:.6g}" for value in own[norm])
            name = f"median {norm_name(norm)}"
            cell[name] = number_with(mean)
            cell[f"{norm_name(norm)} by seed"] = " ".join(number(value) for value in own[norm])
        rows.append(row)
        cells.append(cell)
    higher = "" if plan.higher_target is None else f" (those called higher: {_percent(plan.higher_target)})"
    text = (
        f"Every arm stops at {_percent(plan.target)} validation accuracy{higher}. Distances: medians over the shared "
        "test images, 0 if misclassified."
    )
    return _table(
        f"arms_{plan.name}",
        f"Arms on {plan.name}",
        caption(text, MATCHED, SEEDS, _CENSORED, coverage(run, plan.name)),
        rows,
        cells,
    )


def _accuracies(own: pd.DataFrame, arm: Arm, plan: StudyData) -> tuple[dict[str, Any], dict[str, str]]:
    target, k = plan.higher_target if arm.higher else plan.target, int(column(own, "matched").sum())
    valid, test = (float(column(own, name).mean()) for name in ("validation_accuracy", "test_accuracy"))
    row = {"arm": arm.name, "seeds": len(own), "target": target, "validation_accuracy": valid, "matched": k}
    cell = {"arm": arm.name, "validation": _percent(valid), "matched": f"{k} of {len(own)}", "test": _percent(test)}
    return {**row, "test_accuracy": test}, cell


def _training(run: StudyRun, plan: StudyData) -> Table:
    units, rows, cells = outcomes(run, plan.name), [], []
    for arm in arms(run, plan.name):
        own = pick(units, "arm", arm.name)
        row: dict[str, Any] = {
            "arm": arm.name,
            "seeds": len(own),
            "test_accuracy": float(column(own, "test_accuracy").mean()),
        }
        cell = {"arm": arm.name, "test": _percent(row["test_accuracy"])}
        for sigma in run.study.evaluation.noise:
            row[f"noise.{sigma:g}"] = mean = float(column(own, f"noise.{sigma:g}").mean())
            cell[f"σ = {sigma:g}"] = _percent(mean)
        smooth = over_seeds(own["log_smoothness"]).value
        row |= {"smoothness": None if smooth is None else 10**smooth}
        row |= {"epochs": _median(own, "epochs"), "seconds": _median(own, "seconds")}
        cell |= {"∫‖θ'‖²": number(row["smoothness"]), "epochs": f"{row['epochs']:g}"}
        rows.append(row)
        cells.append({**cell, "time (s)": number(row["seconds"])})
    text = (
        "Accuracy on test images under Gaussian noise of standard deviation σ, not clipped; mean over seeds. ∫‖θ'‖² dt "
        "measures how the weights change with depth (geometric mean over seeds). Complete epochs and seconds of "
        "training: medians."
    )
    title = f"Noise and training on {plan.name}"
    return _table(f"training_{plan.name}", title, caption(text, coverage(run, plan.name)), rows, cells)


def _grids(run: StudyRun, plan: StudyData) -> Table:
    units, asked = outcomes(run, plan.name), run.study.evaluation
    own_steps = int(run.study.network.get("steps", 30))
    rows, cells = [], []
    for arm in arms(run, plan.name):
        own = pick(units, "arm", arm.name)
        for steps in sorted({*asked.steps, own_steps}):
            row = {"arm": arm.name, "steps": steps, **grid_values(own, steps, own_steps)}
            rows.append(row)
            distance = row["median_distance"]
            cells.append(
                {
                    "arm": arm.name,
                    "steps": f"{steps} (trained)" if steps == own_steps else str(steps),
                    "accuracy": _percent(row["accuracy"]),
                    "agreement": _percent(row["agreement"]),
                    "median distance": number(distance if math.isfinite(distance) else None),
                }
            )
    text = (
        "The weights, a function of depth, taken at other numbers of Euler steps; means over seeds. Agreement: same "
        f"label as with {own_steps} steps. Accuracy and agreement on {asked.noise_samples} test images, median "
        f"distance of {asked.steps_attack} on {asked.steps_samples}; in the rows of {own_steps} steps, accuracy on "
        f"the whole test set and distance of all L2 attacks on {asked.samples} images."
    )
    return _table(
        f"grids_{plan.name}", f"Other grids on {plan.name}", caption(text, coverage(run, plan.name)), rows, cells, "arm"
    )


def grid_values(units: pd.DataFrame, steps: int, own: int) -> dict[str, float]:
    """Return accuracy, agreement and median distance at a number of steps, means over the units given."""
    if steps == own:
        accuracy, distance = (
            column(units, "test_accuracy").mean(),
            column(units, "l2").mean() if "l2" in units else math.nan,
        )
        return {"accuracy": float(accuracy), "agreement": 1.0, "median_distance": float(distance)}
    names = ("accuracy", "agreement", "median_distance")
    return {name: float(column(units, f"steps.{steps}.{name}").mean()) for name in names}


def number_with(estimate: Estimate) -> str:
    """Return "0.428 [0.401, 0.455]", without brackets if there is no interval."""
    if estimate.value is None or estimate.lo is None:
        return number(estimate.value)
    return interval(estimate)


def _table(name: str, title: str, text: str, rows: list[Any], cells: list[Any], group: str | None = None) -> Table:
    frame, display = pd.DataFrame(rows), pd.DataFrame(cells)
    return Table(name=name, title=title, caption=text, frame=frame, display=display, group=group)


def _median(frame: pd.DataFrame, name: str) -> float:
    return float(np.median(column(frame, name)))


def _percent(share: float) -> str:
    return NONE if math.isnan(share) else f"{100 * share:.1f} %"
