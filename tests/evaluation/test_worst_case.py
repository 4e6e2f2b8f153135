"""Robust at ε: the judging rule, with its tolerance, errors and cascades."""

from __future__ import annotations

import math

import numpy as np

from robustode.attacks.norms import ball_tolerance
from robustode.evaluation.worst_case import worst_case
from tests import runs

MODEL = runs.model_meta("a", n=4, correct=3)


def test_the_ball_has_its_tolerance():
    tau = ball_tolerance(0.1, (0.0, 1.0), 64, "linf")
    frame = runs.frame(
        runs.success(0.1 + 0.5 * tau, sample=0, eps=None), runs.success(0.1 + 2 * tau, sample=1, eps=None)
    )
    case = worst_case(frame, MODEL, "linf")
    assert case.robust(0.1).tolist() == [False, True]
    wide = worst_case(frame, {**MODEL, "bounds": [-1.0, 9.0]}, "linf")
    assert wide.robust(0.1).tolist() == [False, False]


def test_any_budget_counts_and_robustness_is_monotone():
    frame, meta = runs.synthetic({"a": 0.2}, n=60)
    case = worst_case(frame, meta["models"][0], "linf")
    shares = [case.robust(eps).mean() for eps in np.linspace(0.01, 0.6, 60)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]
    found_at_larger_budget = runs.frame(runs.row(eps=0.1), runs.success(0.09, eps=0.3))
    assert worst_case(found_at_larger_budget, MODEL, "linf").robust(0.1).tolist() == [False]


def test_misclassified_samples_are_never_robust():
    case = worst_case(runs.frame(runs.wrong(sample=0), runs.row(sample=1)), MODEL, "linf")
    assert case.robust(1e-9).tolist() == [False, True]
    assert case.samples.tolist() == [0, 1]


def test_an_error_is_incomplete_until_something_else_breaks_the_sample():
    frame = runs.frame(
        runs.error(sample=0), runs.error(sample=1), runs.success(0.2, sample=1, attack="sens", eps=None),
        runs.wrong(sample=2, attack="sens", eps=None), runs.error(sample=2, clean_pred=0), runs.row(sample=3),
    )  # fmt: skip
    case = worst_case(frame, MODEL, "linf")
    assert case.incomplete(0.1).tolist() == [True, True, False, False]
    assert case.incomplete(0.2).tolist() == [True, False, False, False]
    alone = worst_case(frame, MODEL, "linf", attack="pgd-linf")
    assert alone.incomplete(0.2).tolist() == [True, True, False, False]


def test_a_sample_without_a_row_is_unknown():
    frame = runs.frame(runs.row(sample=0), runs.row(sample=1), runs.row(sample=0, attack="other"))
    assert worst_case(frame, MODEL, "linf", attack="other").unknown.tolist() == [False, True]
    assert worst_case(frame, MODEL, "l2").unknown.tolist() == [True, True]


def test_in_a_cascade_a_skipped_sample_has_the_earlier_attacks_distance():
    frame = runs.frame(
        runs.success(0.08, sample=0), runs.row(sample=1), runs.row(sample=0, attack="later", status="skipped"),
        runs.success(0.1, sample=1, attack="later"),
    )  # fmt: skip
    assert worst_case(frame, MODEL, "linf", attack="later").distance.tolist() == [0.08, 0.1]
    assert worst_case(frame, MODEL, "linf", attack="pgd-linf").distance.tolist() == [0.08, math.inf]
