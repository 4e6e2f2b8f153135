"""What the tables and figures of a study share: the outcomes of its units, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from robustode.evaluation.statistics_seeds import SeedTest, t_interval
from robustode.evaluation.study import Arm, StudyData
from robustode.evaluation.study_runner import StudyRun
from robustode.evaluation.study_unit import MATCH, units_of

SEEDS = "Brackets: 95 % Student intervals over the training seeds, the units of replication."
MATCHED = f"Matched: within {100 * MATCH:.1f} points of the target in validation accuracy."


def pick(frame: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """Return the rows with that value in a column."""
    return pd.DataFrame(frame[frame[column] == value])


def column(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column as numbers, NaN where there is none."""
    return frame[name].to_numpy(dtype=float, na_value=math.nan)


def plans(run: StudyRun) -> list[StudyData]:
    """Return the data sets with a finished unit, that of the primary outcome first."""
    found = [plan for plan in run.study.data if len(run.units) and len(pick(run.units, "data", plan.name))]
    return sorted(found, key=lambda plan: plan.name != run.study.primary.data)


def arms(run: StudyRun, data: str) -> list[Arm]:
    """Return the arms with a finished unit on that data set, in the order of the study."""
    there = set(pick(run.units, "data", data)["arm"])
    return [arm for arm in run.study.arms if arm.name in there]


def norms(run: StudyRun) -> list[str]:
    """Return the norms with distances, L2 first."""
    return sorted(run.distances["norm"].unique())


def outcomes(run: StudyRun, data: str) -> pd.DataFrame:
    """Return the units of a data set with a column for the median distance in each norm, and `log_smoothness`.

    The median is over the shared test images, of which a misclassified one counts as 0; +inf where half were unbroken.
    `log_smoothness` is log₁₀ ∫ ‖θ'(t)‖² dt.
    """
    units, own = pick(run.units, "data", data).reset_index(drop=True), pick(run.distances, "data", data)
    for norm in norms(run):
        groups = pick(own, "norm", norm).groupby(["arm", "seed"])["distance"]
        found = {key: float(np.median(part.to_numpy())) for key, part in groups}
        units[norm] = [found.get(key, math.nan) for key in zip(units["arm"], units["seed"], strict=True)]
    units["log_smoothness"] = [math.log10(value) if value > 0 else math.nan for value in units["smoothness"]]
    return units


def over_seeds(values: Iterable[float]) -> SeedTest:
    """Return the mean over seeds with its t-interval, without seeds that have no finite value (n counts the others)."""
    return t_interval([float(value) for value in values if math.isfinite(value)])


def distances(run: StudyRun, data: str, arm: str, seed: int, norm: str) -> np.ndarray | None:
    """Return the distances of one unit in the order of the test images, None if the unit is not finished."""
    frame = run.distances
    chosen = (frame["data"] == data) & (frame["arm"] == arm) & (frame["seed"] == seed) & (frame["norm"] == norm)
    part = pd.DataFrame(frame[chosen]).sort_values("sample")
    return part["distance"].to_numpy(dtype=float) if len(part) else None


def seeds_of(run: StudyRun, data: str, *names: str) -> list[int]:
    """Return the seeds for which every one of these arms is finished on a data set."""
    units = pick(run.units, "data", data)
    found = [{int(seed) for seed in pick(units, "arm", name)["seed"].tolist()} for name in names]
    return sorted(set.intersection(*found))


def coverage(run: StudyRun, data: str | None = None) -> str:
    """Return how many units are there, and the arms that are left out as they have none; "" if all are there."""
    asked = [unit for unit in units_of(run.study) if data in (None, unit.plan.name)]
    if data is None:
        done, there = len(run.units), set(run.units["arm"]) if len(run.units) else set()
    else:
        done, there = len(pick(run.units, "data", data)), {arm.name for arm in arms(run, data)}
    if done == len(asked):
        return ""
    text = f"Incomplete: {done} of {len(asked)} units are finished."
    missing = [arm.name for arm in run.study.arms if arm.name not in there]
    return f"{text} Left out, without units: {', '.join(missing)}." if missing else text


def caption(*sentences: str) -> str:
    """Join sentences, leaving out the empty ones."""
    return " ".join(sentence for sentence in sentences if sentence)
