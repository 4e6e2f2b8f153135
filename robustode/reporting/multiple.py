"""Multiple testing: the corrected p of every test of a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from robustode.evaluation.statistics import holm


def with_holm(rows: Iterable[dict[str, Any]]) -> int:
    """Put `p_holm` into each row, `holm` of the `p` of all rows that have one, None in the others; return how many."""
    every = list(rows)
    tests = [row for row in every if row["p"] is not None]
    for row in every:
        row["p_holm"] = None
    for row, corrected in zip(tests, holm([row["p"] for row in tests]).tolist(), strict=True):
        row["p_holm"] = corrected
    return len(tests)
