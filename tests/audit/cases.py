"""Cases for the checks: a model and its samples, with the records of the attacks that a run would have made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from robustode.attacks.cards import resolve
from robustode.audit.case import Case
from robustode.evaluation import records as records_file
from robustode.evaluation.counting import Counted
from robustode.evaluation.engine import run_unit
from robustode.evaluation.judge import Judge
from robustode.evaluation.rows import Shard, Subject

COMMON = {"data": "test", "seed": 0, "protocol": "test"}


def make_case(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attacks: Sequence[str] = (),
    budgets: Mapping[str, Sequence[float]] | None = None,
    **options: Any,
) -> Case:
    """Return the case of a classifier (`ro.wrap` or our own) after the given cards were run on all samples.

    Args:
        model: with bounds, classes and input_shape, in the mode in which it is to be audited.
        x, y: (n, *input_shape) and (n,).
        attacks: names of shipped cards or suites.
        budgets: {norm: radii}.
        options: further fields of `Case`.
    """
    radii = dict(budgets or {})
    cards = [card for name in attacks for card in resolve(name)]
    judge = Judge(model)
    pred, margin = judge.answer(x, y)
    shard = Shard(number=0, x=x, y=y, index=torch.arange(len(y)), clean_pred=pred, clean_margin=margin)
    subject = Subject(label="model", hash="0" * 16, counted=Counted(model), judge=judge)
    frames = [
        run_unit(
            subject,
            card,
            shard,
            radii=radii.get(card.norm, ()),
            data=COMMON["data"],
            seed=COMMON["seed"],
            protocol=COMMON["protocol"],
        ).records
        for card in cards
    ]
    records = records_file.validate(pd.concat(frames, ignore_index=True)) if frames else records_file.empty()
    return Case(
        subject=subject, shard=shard, records=records, cards=tuple(cards), budgets=radii, common=COMMON, **options
    )
