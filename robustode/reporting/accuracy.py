"""Robust accuracy: each attack alone and the worst case of all, at every budget."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robustode.evaluation.examination import claimed, is_audit
from robustode.evaluation.statistics import Estimate, wilson
from robustode.evaluation.worst_case import WorstCase, worst_case
from robustode.reporting import captions, layout
from robustode.reporting.formatting import eps_label, norm_name, percent
from robustode.reporting.tables import Table


def robust_accuracy(records: pd.DataFrame, meta: dict[str, Any]) -> list[Table]:
    """Return one table for each norm: a row per model and attack, the share of robust samples at every ε.

    The worst case of the run's attacks is what they claim; beside it stands what is left after the audit.

    Columns of the numbers: model, attack, norm, eps (0: clean), estimate, lo, hi, robust, n, incomplete.
    """
    tables = [_of_norm(records, meta, norm) for norm in layout.norms(records, meta) if layout.has(records, norm)]
    return tables or [clean_accuracy(records, meta)]


def clean_accuracy(records: pd.DataFrame, meta: dict[str, Any]) -> Table:
    """Return the table of accuracies without attack, for a run of no attacks."""
    rows = [_clean_row(model, "none", "") for model in meta["models"]]
    shown = [{"model": row["model"], "clean accuracy": _cell(row)} for row in rows]
    return Table(
        name="clean_accuracy",
        title="Clean accuracy",
        caption=captions.caption(records, meta, "No attack was run.", captions.WILSON),
        frame=pd.DataFrame(rows),
        display=pd.DataFrame(shown),
        group=None,
    )


def _of_norm(records: pd.DataFrame, meta: dict[str, Any], norm: str) -> Table:
    epses = layout.budgets(meta, norm)
    frame, display, bold = [], [], set()
    own = claimed(records)
    audited = any(is_audit(name) for name in records["attack"].unique())
    for model in meta["models"]:
        cases = {name: worst_case(own, model, norm, attack=name) for name in layout.attacks(records, meta, norm)}
        cases[layout.ALL_ATTACKS] = worst_case(own, model, norm)
        if audited:
            cases[layout.AFTER_AUDIT] = worst_case(records, model, norm)
        for name, case in cases.items():
            rows = [_clean_row(model, name, norm), *(_row(model, name, case, eps) for eps in epses)]
            frame += rows
            if name in (layout.ALL_ATTACKS, layout.AFTER_AUDIT):
                bold.add(len(display))
            cells = dict(zip(_headings(epses), map(_cell, rows), strict=True))
            display.append({"model": model["label"], "attack": name, **cells})
    return Table(
        name=f"robust_accuracy_{norm}",
        title=f"Robust accuracy, {norm_name(norm)}",
        caption=captions.caption(
            records,
            meta,
            captions.WORST_CASE,
            captions.AUDIT if audited else "",
            captions.MISCLASSIFIED,
            captions.WILSON,
            f"Norm: {norm_name(norm)}.",
        ),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame(display),
        bold=frozenset(bold),
    )


def _headings(epses: list[float]) -> list[str]:
    return ["clean", *(f"ε = {eps_label(eps)}" for eps in epses)]


def _row(model: dict[str, Any], attack: str, case: WorstCase, eps: float) -> dict[str, Any]:
    """One cell as numbers. Samples of the data set without any row count as incomplete."""
    robust, n = int(case.robust(eps).sum()), int(model["n"])
    incomplete = int(case.incomplete(eps).sum()) + n - len(case.samples)
    estimate = Estimate(value=None, lo=None, hi=None) if incomplete else wilson(robust, n)
    return _numbers(model, attack, case.norm, eps, estimate, None if incomplete else robust, incomplete)


def _clean_row(model: dict[str, Any], attack: str, norm: str) -> dict[str, Any]:
    correct = int(model["clean_correct"])
    return _numbers(model, attack, norm, 0.0, wilson(correct, int(model["n"])), correct, 0)


def _numbers(
    model: dict[str, Any], attack: str, norm: str, eps: float, estimate: Estimate, robust: int | None, incomplete: int
) -> dict[str, Any]:
    return {
        "model": model["label"],
        "attack": attack,
        "norm": norm,
        "eps": eps,
        "estimate": estimate.value,
        "lo": estimate.lo,
        "hi": estimate.hi,
        "robust": pd.NA if robust is None else robust,
        "n": int(model["n"]),
        "incomplete": incomplete,
    }


def _cell(row: dict[str, Any]) -> str:
    if row["incomplete"]:
        return f"incomplete ({row['incomplete']})"
    return percent(Estimate(value=row["estimate"], lo=row["lo"], hi=row["hi"]))
