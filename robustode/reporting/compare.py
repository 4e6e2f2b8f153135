"""Models of one or several runs on the same samples: side by side, and paired differences with intervals and tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from robustode.errors import RunError
from robustode.evaluation.rundir import RunDir
from robustode.evaluation.statistics import Estimate, mcnemar, median_difference, paired_difference
from robustode.evaluation.worst_case import WorstCase, worst_case
from robustode.reporting import captions, layout
from robustode.reporting.accuracy import robust_accuracy
from robustode.reporting.distances import minimal_distance
from robustode.reporting.formatting import NONE, eps_label, interval, norm_name, p_value, points
from robustode.reporting.join import join
from robustode.reporting.multiple import with_holm
from robustode.reporting.tables import Table

ALL_PAIRS = 4  # models; with more, each is compared with the first
_ACCURACY = (
    "Robust accuracy of the first model minus that of the second, in percentage points on the same samples (worst case "
    "of all attacks). Brackets: 95 % intervals for paired proportions (Newcombe 1998, method 10). p: exact two-sided "
    "McNemar test of this comparison alone; p (Holm): corrected for all tests of this table ({tests}). Only first, "
    "only second: numbers of samples that are robust under one model alone."
)
_DISTANCE = (
    "Median smallest distance over all attacks of the first model minus that of the second, on the same samples; "
    "misclassified samples have distance 0, unbroken ones +∞. Brackets: 95 % percentile intervals of {resamples} "
    "paired bootstrap draws (seed {seed}); an end is ∞ where half or more of a draw is unbroken."
)
_SCOPE = "Intervals cover the sampling of test points, not the weakness of the attacks nor the training seeds."


def compare(runs: Sequence[RunDir], *, seed: int = 0, resamples: int = 2000) -> list[Table]:
    """Return robust accuracies and minimal distances side by side, then the paired differences, for each norm.

    All pairs of models, or each against the first if there are more than four.

    Args:
        runs: finished runs with at least two models together.
        seed: of the bootstrap.
        resamples: bootstrap draws.

    Raises:
        RunError: if the runs are not comparable (naming what differs) or hold one model only.
    """
    run = join(runs)
    if len(run.meta["models"]) < 2:
        raise RunError(
            "comparison", expected="at least two models", got="one", fix="Give a second run on the same data"
        )
    sides = [*robust_accuracy(run.records, run.meta), *minimal_distance(run.records, run.meta)]
    return [*sides, *paired(run.records, run.meta, seed=seed, resamples=resamples)]


def paired(records: pd.DataFrame, meta: dict[str, Any], *, seed: int = 0, resamples: int = 2000) -> list[Table]:
    """Return the paired differences between the models of one set of records, two tables for each norm."""
    tables = []
    for norm, cases in _cases(records, meta).items():
        tables += [
            _accuracy(cases, records, meta, norm),
            _distance(cases, records, meta, norm, seed=seed, resamples=resamples),
        ]
    return tables


def paired_accuracy(records: pd.DataFrame, meta: dict[str, Any]) -> dict[str, Table]:
    """Return the paired differences of robust accuracy alone, a table for each norm: no bootstrap."""
    return {norm: _accuracy(cases, records, meta, norm) for norm, cases in _cases(records, meta).items()}


def _cases(records: pd.DataFrame, meta: dict[str, Any]) -> dict[str, dict[str, WorstCase]]:
    """The worst case of every model, by norm and label."""
    return {
        norm: {model["label"]: worst_case(records, model, norm) for model in meta["models"]}
        for norm in layout.norms(records, meta)
        if layout.has(records, norm)
    }


def pairs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs that are compared: all, or each with the first if there are more than `ALL_PAIRS` models."""
    if len(labels) <= ALL_PAIRS:
        return list(itertools.combinations(labels, 2))
    return [(labels[0], other) for other in labels[1:]]


def _accuracy(cases: dict[str, WorstCase], records: pd.DataFrame, meta: dict[str, Any], norm: str) -> Table:
    epses = [0.0, *layout.budgets(meta, norm)]
    frame = [_difference(cases, first, second, eps) for first, second in pairs(list(cases)) for eps in epses]
    text = _ACCURACY.format(tests=with_holm(frame))
    return Table(
        name=f"paired_accuracy_{norm}",
        title=f"Differences of robust accuracy, {norm_name(norm)}",
        caption=captions.caption(records, meta, text, _SCOPE, f"Norm: {norm_name(norm)}."),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame([_shown(row) for row in frame]),
        group="models",
    )


def _difference(cases: dict[str, WorstCase], first: str, second: str, eps: float) -> dict[str, Any]:
    """One pair at one ε; at ε = 0 the clean predictions are compared."""
    one, two = cases[first], cases[second]
    a, b = (one.distance > 0, two.distance > 0) if eps == 0 else (one.robust(eps), two.robust(eps))
    incomplete = 0 if eps == 0 else int((one.incomplete(eps) | two.incomplete(eps)).sum())
    counts = [int(v.sum()) for v in (a & b, a & ~b, ~a & b, ~a & ~b)]
    estimate = Estimate(value=None, lo=None, hi=None) if incomplete else paired_difference(*counts)
    return {
        "first": first,
        "second": second,
        "norm": one.norm,
        "eps": eps,
        "estimate": estimate.value,
        "lo": estimate.lo,
        "hi": estimate.hi,
        "p": None if incomplete else mcnemar(counts[1], counts[2]),
        "p_holm": None,
        "both": counts[0],
        "first_only": counts[1],
        "second_only": counts[2],
        "neither": counts[3],
        "n": len(a),
        "incomplete": incomplete,
    }


def _shown(row: dict[str, Any]) -> dict[str, str]:
    estimate = Estimate(value=row["estimate"], lo=row["lo"], hi=row["hi"])
    return {
        "models": f"{row['first']} − {row['second']}",
        "ε": "0 (clean)" if row["eps"] == 0 else eps_label(row["eps"]),
        "difference (points)": f"incomplete ({row['incomplete']})" if row["incomplete"] else points(estimate),
        "McNemar p": NONE if row["p"] is None else p_value(row["p"]),
        "p (Holm)": NONE if row["p_holm"] is None else p_value(row["p_holm"]),
        "only first": str(row["first_only"]),
        "only second": str(row["second_only"]),
    }


def _distance(
    cases: dict[str, WorstCase], records: pd.DataFrame, meta: dict[str, Any], norm: str, *, seed: int, resamples: int
) -> Table:
    frame, display = [], []
    for first, second in pairs(list(cases)):
        one, two = cases[first], cases[second]
        incomplete = int(((one.unknown & np.isinf(one.distance)) | (two.unknown & np.isinf(two.distance))).sum())
        generator = np.random.default_rng(seed)
        estimate = median_difference(one.distance, two.distance, generator, resamples=resamples)
        if incomplete:
            estimate = Estimate(value=None, lo=None, hi=None)
        numbers = {"estimate": estimate.value, "lo": estimate.lo, "hi": estimate.hi, "n": len(one.distance)}
        frame.append({"first": first, "second": second, "norm": norm, **numbers, "incomplete": incomplete})
        text = interval(estimate, sign=True) if estimate.value is not None else NONE
        cell = f"incomplete ({incomplete})" if incomplete else text
        display.append({"models": f"{first} − {second}", f"median {norm_name(norm)}, difference": cell})
    text = _DISTANCE.format(resamples=resamples, seed=seed)
    return Table(
        name=f"paired_distance_{norm}",
        title=f"Differences of the median smallest distance, {norm_name(norm)}",
        caption=captions.caption(records, meta, text, _SCOPE, f"Norm: {norm_name(norm)}."),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame(display),
        group=None,
    )
