"""Fixtures of the tests of the evaluation."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustode.attacks.card import Card
from robustode.attacks.cards import resolve
from robustode.evaluation.plan import Plan
from tests.evaluation.problem import affine, forms, plan_of
from tests.evaluation.runs import BUDGETS, six_attacks


@pytest.fixture
def suite(tmp_path: Path) -> str:
    """The path of a suite of six attacks."""
    return six_attacks(tmp_path / "suite")


@pytest.fixture
def plan(suite: str) -> Plan:
    """The six attacks at two budgets on an affine classifier, in two shards."""
    model, data = affine()
    return plan_of(model, data, attacks=suite, budgets=BUDGETS, shard=16)


@pytest.fixture
def card(tmp_path: Path) -> Callable[..., Card]:
    """Makes cards of the functions in `FORMS`."""
    folder = forms(tmp_path)

    def make(name: str, norm: str = "l2", kind: str = "budget", **params: Any) -> Card:
        (one,) = resolve(f"python:forms.py:{name}", norms=[norm], params=params, base=folder)
        return one.model_copy(update={"kind": kind})

    return make


@pytest.fixture
def no_torchattacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torchattacks were not installed."""
    find = importlib.util.find_spec
    hidden = {"torchattacks"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in hidden else find(name, *rest))
