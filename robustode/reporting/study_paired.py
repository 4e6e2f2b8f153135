"""Robust accuracies of two arms on the same test images: by seed, with exact tests; and the curves against ε."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from robustode.attacks.norms import ball_tolerance
from robustode.data import CATALOGUE, DEFAULT_BUDGETS
from robustode.evaluation.statistics import Estimate, mcnemar, paired_difference
from robustode.evaluation.study import FACTORS
from robustode.evaluation.study_runner import StudyRun
from robustode.reporting.formatting import NONE, eps_label, norm_name, number, p_value, points
from robustode.reporting.multiple import with_holm
from robustode.reporting.study_frame import arms, caption, coverage, distances, norms, over_seeds, pick, plans, seeds_of
from robustode.reporting.tables import Table

POINTS = 101  # of a curve
QUANTILE = 0.99  # of the finite distances, where the curves end


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two arms to compare, first − second."""

    arm: str
    against: str


def pairs(run: StudyRun) -> list[Pair]:
    """Return the primary pair, its arm against the same one with the other optimiser, and against other twins.

    The other twins are the arm `against` with each optimiser that neither of the pair has.
    """
    asked = run.study.primary
    by_name = {arm.name: arm for arm in run.study.arms}
    one, two = by_name[asked.arm], by_name[asked.against]
    levels = [one.levels | {"optimiser": two.levels["optimiser"]}]
    taken = (one.levels["optimiser"], two.levels["optimiser"])
    levels += [two.levels | {"optimiser": name} for name in run.study.factors["optimiser"] if name not in taken]
    cells = {tuple(arm.levels[factor] for factor in FACTORS): arm.name for arm in reversed(run.study.arms)}
    found = [asked.against, *(cells.get(tuple(row[factor] for factor in FACTORS), "") for row in levels)]
    return [Pair(arm=asked.arm, against=name) for name in dict.fromkeys(found) if name not in ("", asked.arm)]


def mcnemar_tables(run: StudyRun) -> list[Table]:
    """Return, for each data set with budgets, the paired robust accuracies at them: a row per seed, then the mean."""
    return [_mcnemar(run, plan.name) for plan in plans(run) if plan.name in DEFAULT_BUDGETS]


def robust(distance: np.ndarray, eps: float, data: str, norm: str) -> np.ndarray:
    """Return (samples,) bool: correctly classified and no distance ≤ ε + τ was found, for images in [0, 1]."""
    dimension = math.prod(CATALOGUE[data].shape) if data in CATALOGUE else 1
    return distance > eps + ball_tolerance(eps, (0.0, 1.0), dimension, norm)


def curves(run: StudyRun, data: str, norm: str) -> pd.DataFrame:
    """Return robust accuracy against ε by arm: `arm, eps, robust_accuracy` (mean over seeds), `seeds`."""
    own = pick(pick(run.distances, "data", data), "norm", norm)
    finite = own["distance"].to_numpy(dtype=float)
    finite = finite[np.isfinite(finite)]
    end, rows = float(np.quantile(finite, QUANTILE)) if len(finite) else 1.0, []
    by_arm: dict[str, list[np.ndarray]] = {}
    for arm in sorted(set(own["arm"])):
        groups = pick(own, "arm", arm).groupby("seed")["distance"]
        by_arm[arm] = [part.to_numpy(dtype=float) for _, part in groups]
    for arm in arms(run, data):
        for eps in np.linspace(0.0, end, POINTS) if arm.name in by_arm else ():
            share = float(np.mean([robust(one, eps, data, norm).mean() for one in by_arm[arm.name]]))
            rows.append({"arm": arm.name, "eps": eps, "robust_accuracy": share, "seeds": len(by_arm[arm.name])})
    return pd.DataFrame(rows, columns=["arm", "eps", "robust_accuracy", "seeds"])


def _mcnemar(run: StudyRun, data: str) -> Table:
    rows = [
        row
        for pair in pairs(run)
        for norm in norms(run)
        for eps in DEFAULT_BUDGETS[data].get(norm, ())
        for row in _rows(run, data, pair, norm, eps)
    ]
    with_holm(rows)
    columns = ["arm", "against", "norm", "eps", "seed", "first", "second", "difference", "lo", "hi", "p", "p_holm"]
    names = ["pair", "ε", "seed", "first", "second", "difference", "p", "p (Holm)"]
    text = (
        "Robust accuracy at ε of two arms on the same test images (worst case of all attacks), and first minus "
        "second in percentage points. One seed: 95 % interval for paired proportions (Newcombe 1998, method 10) and "
        "exact two-sided McNemar test, over the test images. Mean: Student interval and t-test over the training "
        "seeds, the units of replication. p: of this test alone; p (Holm): corrected for all tests of this table."
    )
    return Table(
        name=f"mcnemar_{data}",
        title=f"Paired robust accuracy on {data}",
        caption=caption(text, coverage(run, data)),
        frame=pd.DataFrame(rows, columns=columns),
        display=pd.DataFrame([_cells(row) for row in rows], columns=names),
        group="pair",
        bold=frozenset(i for i, row in enumerate(rows) if row["seed"] == "mean"),
    )


def _rows(run: StudyRun, data: str, pair: Pair, norm: str, eps: float) -> list[dict[str, Any]]:
    base, rows = {"arm": pair.arm, "against": pair.against, "norm": norm, "eps": eps}, []
    for seed in seeds_of(run, data, pair.arm, pair.against):
        found = [distances(run, data, name, seed, norm) for name in (pair.arm, pair.against)]
        a, b = (robust(one, eps, data, norm) for one in found if one is not None)
        first, second = int((a & ~b).sum()), int((b & ~a).sum())
        gap = paired_difference(int((a & b).sum()), first, second, int((~a & ~b).sum()))
        row = {"seed": str(seed), "first": float(a.mean()), "second": float(b.mean()), "difference": gap.value}
        rows.append({**base, **row, "lo": gap.lo, "hi": gap.hi, "p": mcnemar(first, second)})
    if not rows:
        return rows
    test = over_seeds([row["difference"] for row in rows])
    means = {side: float(np.mean([row[side] for row in rows])) for side in ("first", "second")}
    last = {**base, "seed": "mean", **means, "difference": test.value, "lo": test.lo, "hi": test.hi, "p": test.p}
    return [*rows, last]


def _cells(row: dict[str, Any]) -> list[str]:
    gap = Estimate(value=row["difference"], lo=row["lo"], hi=row["hi"])
    return [
        f"{norm_name(row['norm'])}: {row['arm']} − {row['against']}",
        eps_label(row["eps"]),
        row["seed"],
        f"{100 * row['first']:.1f} %",
        f"{100 * row['second']:.1f} %",
        number(100 * row["difference"], sign=True) if gap.lo is None else points(gap),
        *(NONE if row[name] is None else p_value(row[name]) for name in ("p", "p_holm")),
    ]
