"""Main effects of the factors of a study, over seeds."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from robustode.evaluation.statistics import Estimate
from robustode.evaluation.statistics_seeds import SeedTest
from robustode.evaluation.study import FACTORS, StudyData
from robustode.evaluation.study_runner import StudyRun
from robustode.reporting.formatting import NONE, interval, norm_name, number, p_value
from robustode.reporting.multiple import with_holm
from robustode.reporting.study_frame import MATCHED, caption, column, coverage, norms, outcomes, over_seeds, pick, plans
from robustode.reporting.tables import Table

# factor, level, level it is compared with
CONTRASTS = (
    ("optimiser", "ncg", "adam"),
    ("optimiser", "ncg", "sgd"),
    ("operator", "sobolev", "l2"),
    ("cost", "ce", "squared"),
    ("initialisation", "spline", "independent"),
)


def factors_tables(run: StudyRun) -> list[Table]:
    """Return, for each data set, the main effect of every factor on every outcome: over all cells, and over CE alone.

    The effect of a level in one seed is the mean, over all combinations of the other factors, of the outcome with that
    level minus the outcome with the other one; then mean and Student interval over the seeds in which all of these
    cells are finished.
    """
    return [_factors(run, plan) for plan in plans(run)]


def effect(cells: pd.DataFrame, outcome: str, factor: str, level: str, other: str) -> list[float]:
    """Return the main effect in each seed.

    Args:
        cells: one row for each seed and cell of the factorial, with its levels; complete or not.
        outcome: column of numbers.
        factor, level, other: the contrast level − other.

    Returns:
        (seeds,) only of seeds with every pair of cells and finite outcomes.
    """
    rest = [name for name in FACTORS if name != factor]
    index = ["seed", *rest]
    one, two = (pick(cells, factor, value).set_index(index)[outcome].astype(float) for value in (level, other))
    pairs = pd.concat([one, two]).groupby(level=rest).ngroups
    difference = (one - two).replace([math.inf, -math.inf], math.nan).dropna()
    by_seed = difference.groupby(level="seed").agg(["size", "mean"])
    return by_seed.loc[by_seed["size"] == pairs, "mean"].tolist()


def _factors(run: StudyRun, plan: StudyData) -> Table:
    units = outcomes(run, plan.name)
    inside = ["-".join(row) for row in units[list(FACTORS)].to_numpy().tolist()]
    cells = pd.DataFrame(units[units["arm"] == inside])
    rows = []
    for scope, part in _scopes(cells):
        for outcome, title in _outcomes(run).items():
            for factor, level, other in CONTRASTS:
                levels = set(part[factor])
                if level in levels and other in levels:
                    involved = pd.concat([pick(part, factor, level), pick(part, factor, other)])
                    test = over_seeds(effect(part, outcome, factor, level, other))
                    rows.append(_row(scope, title, f"{level} − {other}", test, involved))
    with_holm(rows)
    display = pd.DataFrame([_cells(row) for row in rows])
    text = (
        "Effects on accuracies in percentage points. Mean over all combinations of the other factors of the outcome "
        "with the first level minus that with the second, then mean and 95 % Student interval over the seeds in "
        "which all these cells are finished (n), with the two-sided p of the t-test; p (Holm): corrected for all tests "
        "of this table. Cells matched: units involved that stopped at the target; where not all did, the effect mixes "
        "in one of accuracy."
    )
    return Table(
        name=f"factors_{plan.name}",
        title=f"Main effects on {plan.name}",
        caption=caption(text, MATCHED, coverage(run, plan.name)),
        frame=pd.DataFrame(rows),
        display=display,
        group="cells and outcome",
    )


def _scopes(cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """All cells; those of CE; and these by operator and by optimiser, since the two interact."""
    ce = pick(cells, "cost", "ce")
    scopes = [("all cells", cells), ("CE cells", ce)]
    for factor in ("operator", "optimiser"):
        scopes += [(f"CE cells, {level} alone", pick(ce, factor, level)) for level in FACTORS[factor]]
    return scopes


def _outcomes(run: StudyRun) -> dict[str, str]:
    noise = run.study.evaluation.noise
    found = {norm: f"median {norm_name(norm)} distance" for norm in norms(run)}
    found |= {"test_accuracy": "test accuracy", "log_smoothness": "log10 of ∫‖θ'‖²"}
    if noise:
        middle = sorted(noise)[len(noise) // 2]
        found[f"noise.{middle:g}"] = f"accuracy under noise σ = {middle:g}"
    return found


def _row(scope: str, outcome: str, contrast: str, test: SeedTest, involved: pd.DataFrame) -> dict[str, Any]:
    row = {"scope": scope, "outcome": outcome, "contrast": contrast, "effect": test.value, "lo": test.lo, "hi": test.hi}
    return {
        **row,
        "p": test.p,
        "seeds": test.n,
        "matched": int(column(involved, "matched").sum()),
        "units": len(involved),
    }


def _cells(row: dict[str, Any]) -> dict[str, str]:
    test = SeedTest(value=row["effect"], lo=row["lo"], hi=row["hi"], p=row["p"], n=row["seeds"])
    return {
        "cells and outcome": f"{row['scope']}: {row['outcome']}",
        "contrast": row["contrast"],
        "effect": _effect(test, 100.0 if "accuracy" in row["outcome"] else 1.0),
        **{
            title: NONE if row[name] is None else p_value(row[name])
            for name, title in (("p", "p"), ("p_holm", "p (Holm)"))
        },
        "n": str(test.n),
        "cells matched": f"{row['matched']} of {row['units']}",
    }


def _effect(test: SeedTest, factor: float) -> str:
    """Return the effect with its interval, in units of 1/factor."""
    value, lo, hi = (None if end is None else factor * end for end in (test.value, test.lo, test.hi))
    if lo is None:
        return number(value, sign=True)
    return interval(Estimate(value=value, lo=lo, hi=hi), sign=True)
