"""How numbers are written."""

from __future__ import annotations

import math

import pytest

from robustode.evaluation.statistics import Estimate
from robustode.reporting import formatting as f


@pytest.mark.parametrize(
    ("eps", "label"),
    [(8 / 255, "8/255"), (0.5 / 255, "0.00196078"), (0.3, "0.3"), (0.2, "0.2"), (1.0, "1"), (0.031, "0.031")],
)  # fmt: skip
def test_eps_label(eps, label):
    assert f.eps_label(eps) == label


def test_percent_and_points():
    assert f.percent(Estimate(value=0.95, lo=0.9104, hi=0.9729)) == "95.0 % [91.0, 97.3]"
    assert f.percent(Estimate(value=None, lo=None, hi=None)) == "–"
    assert f.points(Estimate(value=0.035, lo=-0.004, hi=0.068)) == "+3.5 [−0.4, +6.8]"
    assert f.points(Estimate(value=None, lo=None, hi=None)) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.394, "0.394"), (0.39, "0.390"), (12.345, "12.3"), (0, "0"), (1.2e-5, "1.20e−05"), (123.4, "123")],
)  # fmt: skip
def test_number(value, text):
    assert f.number(value) == text


def test_number_missing():
    assert f.number(None) == f.number(math.nan) == "–"


def test_interval_has_one_number_of_decimals():
    assert f.interval(Estimate(value=1.0444, lo=0.9321, hi=1.1)) == "1.04 [0.93, 1.10]"
    assert f.interval(Estimate(value=-0.0898, lo=-0.168, hi=0.00213), sign=True) == "−0.090 [−0.168, +0.002]"
    assert f.interval(Estimate(value=None, lo=0.42, hi=None)) == "not reached [0.420, ∞]"
    assert f.interval(Estimate(value=0.0, lo=0.0, hi=0.0)) == "0 [0, 0]"
    assert f.interval(Estimate(value=250.0, lo=None, hi=1300.0)) == "250 [−∞, 1.30e+03]"


def test_p_value():
    assert [f.p_value(p) for p in (1.0, 0.26, 0.0312, 0.0004)] == ["1.00", "0.26", "0.031", "< 0.001"]
