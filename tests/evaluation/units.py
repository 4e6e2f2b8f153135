"""Running single units on the affine problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from robustode.data import Data
from robustode.evaluation import records
from robustode.evaluation.engine import Unit, run_unit
from tests.evaluation.problem import affine, subject_and_shard

N, WRONG = 30, 2


def unit(
    attack: Any, model: Any = None, data: Data | None = None, *, radii: Sequence[float] = (0.1,), seed: int = 0
) -> tuple[Unit, pd.DataFrame]:
    """Run one unit, by default on `affine(N, wrong=WRONG)`; return it and its records, validated."""
    own_model, own_data = affine(N, wrong=WRONG)
    subject, shard = subject_and_shard(model or own_model, data or own_data)
    made = run_unit(subject, attack, shard, radii=radii, data="toy", seed=seed, protocol="p")
    return made, records.validate(made.records)


def attacked(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows that were misclassified from the start, and the others."""
    return records.rows(frame, status="misclassified"), frame[frame["status"] != "misclassified"]
