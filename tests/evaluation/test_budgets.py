"""Radii as users write them."""

from __future__ import annotations

import pytest

from robustode.errors import BudgetError
from robustode.evaluation.budgets import parse_budgets, parse_radii, parse_radius
from tests.evaluation.problem import refused


@pytest.mark.parametrize(
    ("text", "value"), [("0.1", 0.1), (" 8/255 ", 8 / 255), ("1e-3", 1e-3), ("2", 2.0), ("1 / 4", 0.25)]
)
def test_radius(text, value):
    assert parse_radius(text) == value


@pytest.mark.parametrize("text", ["", "x", "1/0", "4/255/2", "0,1", "8\\255"])
def test_unreadable(text):
    with pytest.raises(BudgetError) as caught:
        parse_radius(text)
    assert str(caught.value) == (
        f"eps: expected a positive number or fraction, got '{text}'. "
        "Write a number such as 0.03 or a fraction such as 8/255."
    )


@pytest.mark.parametrize("text", ["0", "-0.1", "nan", "inf", "1e400", "-1/255", "0/255"])
def test_not_positive(text):
    refused(BudgetError, f"eps: expected a positive, finite radius, got '{text}'", lambda: parse_radius(text))


def test_radii_of_a_protocol():
    assert parse_radii(0.1) == (0.1,)
    assert parse_radii("8/255,4/255") == (4 / 255, 8 / 255)
    assert parse_radii([0.2, "0.1"]) == (0.1, 0.2)
    refused(BudgetError, "eps: expected every radius once, got 0.2 twice", lambda: parse_radii([0.2, "0.1", 0.2]))
    refused(BudgetError, "eps: expected at least one radius, got none", lambda: parse_radii([]))
    refused(BudgetError, "got '-1'", lambda: parse_radii([0.1, -1]))
    refused(BudgetError, "got 'None'", lambda: parse_radii(None))


def test_budgets_by_norm():
    assert parse_budgets(["0.2,0.1"], ["linf"]) == {"linf": (0.1, 0.2)}
    assert parse_budgets(["0.2,0.1"], ["l2", "l2"]) == {"l2": (0.1, 0.2)}
    assert parse_budgets(["linf=4/255,8/255", "l2=0.5", "linf = 0.1"], ["l2", "linf"]) == {
        "linf": (4 / 255, 8 / 255, 0.1),
        "l2": (0.5,),
    }
    assert parse_budgets([], ["l2"]) == {}


def test_mistakes():
    with pytest.raises(BudgetError) as caught:
        parse_budgets(["0.1"], ["linf", "l2"])
    assert str(caught.value) == (
        "eps '0.1' with attacks of several norms (l2, linf): expected NORM=RADIUS, got a bare value. "
        "Name the norm: --eps linf=4/255,8/255 --eps l2=0.5, or choose one with --norm."
    )
    refused(BudgetError, "Did you mean 'linf'?", lambda: parse_budgets(["linff=0.1"], ["linf"]))
    refused(
        BudgetError, "eps: expected a norm of this run (linf), got 'l2'", lambda: parse_budgets(["l2=0.1"], ["linf"])
    )
    refused(BudgetError, "got 0.1 twice", lambda: parse_budgets(["linf=0.1", "linf=0.1"], ["linf"]))
    refused(BudgetError, "got ''", lambda: parse_budgets(["linf=0.1,,0.2"], ["linf"]))
    refused(BudgetError, "expected none, as there are no attacks, got '0.1'", lambda: parse_budgets(["0.1"], []))
