"""The primary outcome of a study: difference of median distances of two arms, over seeds, on every data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from robustode.evaluation.statistics import Estimate, median_difference
from robustode.evaluation.statistics_seeds import paired_t, t_interval
from robustode.evaluation.study_runner import StudyRun
from robustode.reporting.formatting import NONE, interval, norm_name, number, p_value
from robustode.reporting.study_frame import MATCHED, caption, coverage, distances, norms, plans, seeds_of
from robustode.reporting.tables import Table

MEANS = ("mean", "mean of the matched")
_MEAN = {"mean": "mean of {}", "mean of the matched": "mean of {} matched"}
_CENSORED = "No mean where the median of a seed was not reached: leaving that seed out would bias it."
_INTERVALS = (
    "Mean: 95 % Student interval and two-sided p of the paired t-test over the training seeds, the units of "
    "replication. One seed: 95 % percentile interval of 2000 paired bootstrap draws of the test images, which says "
    "nothing of other seeds."
)


def primary(run: StudyRun) -> Table:
    """Return the primary contrast for each data set, the declared one first: a row per seed, then the mean."""
    asked, rows = run.study.primary, []
    norm = next((norm for norm in norms(run) if norm_name(norm) in asked.outcome), "l2")
    for plan in plans(run):
        rows += _rows(run, plan.name, norm)
    columns = ["data", "seed", "arm", "against", "difference", "lo", "hi", "p", "n", "matched"]
    frame = pd.DataFrame(rows, columns=columns)
    cells = [_cells(row, asked.data) for row in rows]
    names = ["data", "seed", asked.arm, asked.against, "difference", "p", "matched"]
    return Table(
        name="primary",
        title=f"Primary outcome: {asked.outcome}",
        caption=caption(
            f"Median minimal {norm_name(norm)} distance over the shared test images (0 if misclassified) of "
            f"{asked.arm} minus that of {asked.against}. Declared before the run for {asked.data}; other data sets "
            "repeat it.",
            _INTERVALS,
            f"{MATCHED} Matched seeds: those in which both arms are.",
            "" if all(row["difference"] is not None for row in rows) else _CENSORED,
            coverage(run),
        ),
        frame=frame,
        display=pd.DataFrame(cells, columns=names),
        group="data",
        bold=frozenset(i for i, row in enumerate(rows) if row["seed"] in MEANS),
    )


def _rows(run: StudyRun, data: str, norm: str) -> list[dict[str, Any]]:
    asked, rows = run.study.primary, []
    for seed in seeds_of(run, data, asked.arm, asked.against):
        one, two = (distances(run, data, name, seed, norm) for name in (asked.arm, asked.against))
        if one is None or two is None:
            continue
        found = median_difference(one, two, np.random.default_rng(seed))
        both = all(_matched(run, data, name, seed) for name in (asked.arm, asked.against))
        row = {"data": data, "seed": str(seed), "arm": float(np.median(one)), "against": float(np.median(two))}
        row["matched"] = both
        rows.append({**row, "difference": found.value, "lo": found.lo, "hi": found.hi, "p": None, "n": len(one)})
    if not rows or any(row["difference"] is None for row in rows):
        return rows
    matched = [row for row in rows if row["matched"]]
    means = [_mean(rows, data, MEANS[0])]
    if 0 < len(matched) < len(rows):
        means.append(_mean(matched, data, MEANS[1]))
    return [*rows, *means]


def _mean(rows: list[dict[str, Any]], data: str, name: str) -> dict[str, Any]:
    one, two = ([row[side] for row in rows] for side in ("arm", "against"))
    test, means = paired_t(one, two), [t_interval(values).value for values in (one, two)]
    row = {"data": data, "seed": name, "arm": means[0], "against": means[1], "difference": test.value}
    return {**row, "lo": test.lo, "hi": test.hi, "p": test.p, "n": test.n, "matched": None}


def _matched(run: StudyRun, data: str, arm: str, seed: int) -> bool:
    units = run.units
    chosen = (units["data"] == data) & (units["arm"] == arm) & (units["seed"] == seed)
    return bool(units.loc[chosen, "matched"].all())


def _cells(row: dict[str, Any], declared: str) -> list[str]:
    last = row["seed"] in MEANS
    estimate = Estimate(value=row["difference"], lo=row["lo"], hi=row["hi"])
    known = estimate.value is not None and (not last or estimate.lo is not None)
    return [
        row["data"] if row["data"] == declared else f"{row['data']} (repeats it)",
        _MEAN[row["seed"]].format(row["n"]) if last else row["seed"],
        number(row["arm"]),
        number(row["against"]),
        interval(estimate, sign=True) if known else number(estimate.value, sign=True),
        NONE if row["p"] is None else p_value(row["p"]),
        NONE if last else "yes" if row["matched"] else "no",
    ]
