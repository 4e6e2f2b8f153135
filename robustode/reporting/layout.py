"""The rows and columns of every table: norms, budgets and attacks in the order of the protocol."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robustode.evaluation.examination import is_audit
from robustode.evaluation.records import rows

ALL_ATTACKS = "worst case of all attacks"
AFTER_AUDIT = "after the audit"


def norms(records: pd.DataFrame, meta: dict[str, Any]) -> list[str]:
    """Return the norms with budgets in protocol order, then any other norm of the records."""
    return list(dict.fromkeys([*meta["protocol"]["budgets"], *sorted(set(records["norm"]))]))


def budgets(meta: dict[str, Any], norm: str) -> list[float]:
    """Return the budgets of a norm, ascending."""
    return sorted(float(eps) for eps in meta["protocol"]["budgets"].get(norm, []))


def has(records: pd.DataFrame, norm: str) -> bool:
    """Return whether there are rows in a norm."""
    return norm in set(records["norm"])


def attacks(records: pd.DataFrame, meta: dict[str, Any], norm: str) -> list[str]:
    """Return the attacks with rows in a norm, in protocol order, those without a card after; not those of the audit."""
    names = {name for name in rows(records, norm=norm)["attack"] if not is_audit(name)}
    listed = [card["name"] for card in meta["protocol"]["attacks"] if card["name"] in names]
    return list(dict.fromkeys([*listed, *sorted(names)]))


def cards(meta: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the resolved attack cards by name."""
    return {card["name"]: card for card in meta["protocol"]["attacks"]}
