"""Minimal distances: what the attacks without a budget found, medians with censoring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from robustode.attacks.base import Status
from robustode.evaluation.records import rows
from robustode.evaluation.statistics import Estimate, censored_median, wilson
from robustode.evaluation.worst_case import worst_case
from robustode.reporting import captions, layout
from robustode.reporting.formatting import NONE, interval, norm_name, number, percent
from robustode.reporting.tables import Table

SMALLEST = "smallest of all"
_MEDIAN = (
    "Median over all samples of the smallest distance found; a misclassified sample has distance 0, one that was not "
    "broken +∞, so the median is the ε at which robust accuracy falls to one half. It is given only if fewer than half "
    "are unbroken. Brackets: 95 % intervals from order statistics (medians) and Wilson's (shares). They cover the "
    "sampling of test points, not the weakness of the attacks nor the training seeds."
)
_CONVERGED = "Converged: the attack's own stopping test, among the samples it broke; KKT: median optimality residual."


def minimal_distance(records: pd.DataFrame, meta: dict[str, Any]) -> list[Table]:
    """Return one table for each norm with minimal-norm rows: median, unbroken share, converged share, KKT residual.

    Columns of the numbers: model, attack, norm, estimate, lo, hi (the median's; empty where not finite), unbroken, n,
    converged, converged_of, median_kkt, incomplete.
    """
    minimal = rows(records, eps=None)
    return [_of_norm(minimal, records, meta, norm) for norm in layout.norms(minimal, meta) if layout.has(minimal, norm)]


def _of_norm(minimal: pd.DataFrame, records: pd.DataFrame, meta: dict[str, Any], norm: str) -> Table:
    names = layout.attacks(minimal, meta, norm)
    frame, bold = [], set()
    for model in meta["models"]:
        frame += [_row(minimal, model, norm, name) for name in names]
        if len(names) > 1:
            bold.add(len(frame))
            frame.append(_row(minimal, model, norm, None))
    has_test = any(row["converged_of"] for row in frame)
    return Table(
        name=f"minimal_distance_{norm}",
        title=f"Smallest adversarial distance, {norm_name(norm)}",
        caption=captions.caption(records, meta, _MEDIAN, _CONVERGED if has_test else "", f"Norm: {norm_name(norm)}."),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame([_shown(row, norm, has_test) for row in frame]),
        bold=frozenset(bold),
    )


def _row(minimal: pd.DataFrame, model: dict[str, Any], norm: str, attack: str | None) -> dict[str, Any]:
    case = worst_case(minimal, model, norm, attack=attack)
    n = int(model["n"])
    unbroken = np.isinf(case.distance)
    incomplete = int((case.unknown & unbroken).sum()) + n - len(case.samples)
    median = censored_median(case.distance)
    found = rows(minimal, model=model["label"], norm=norm, attack=attack or "", status=Status.SUCCESS.value)
    tested = found["converged"].dropna().tolist()
    kkt = found["kkt"].dropna().tolist()
    return {
        "model": model["label"],
        "attack": attack or SMALLEST,
        "norm": norm,
        "estimate": None if incomplete else median.value,
        "lo": None if incomplete else median.lo,
        "hi": None if incomplete else median.hi,
        "unbroken": int(unbroken.sum()),
        "n": n,
        "converged": sum(tested) if tested else pd.NA,
        "converged_of": len(tested),
        "median_kkt": float(np.median(kkt)) if kkt else None,
        "incomplete": incomplete,
    }


def _shown(row: dict[str, Any], norm: str, has_test: bool) -> dict[str, str]:
    unknown = f"incomplete ({row['incomplete']})" if row["incomplete"] else None
    median = interval(Estimate(value=row["estimate"], lo=row["lo"] or 0.0, hi=row["hi"]))
    shown = {
        "model": row["model"],
        "attack": row["attack"],
        f"median {norm_name(norm)}": unknown or median,
        "not broken": unknown or percent(wilson(row["unbroken"], row["n"])),
    }
    if has_test:
        of = row["converged_of"]
        shown["converged"] = f"{100 * row['converged'] / of:.1f} %" if of else NONE
        shown["KKT"] = number(row["median_kkt"])
    return shown
