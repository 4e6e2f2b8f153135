"""Cases for the checks: a model and its samples, with the records of the attacks that a run would have made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from robustode.attacks.card import Card, make_card
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
    attacks: Sequence[str | Card] = (),
    budgets: Mapping[str, Sequence[float]] | None = None,
    **options: Any,
) -> Case:
    """Return the case of a classifier (`ro.wrap` or our own) after the given cards were run on all samples.

    Args:
        model: with bounds, classes and input_shape, in the mode in which it is to be audited.
        x, y: (n, *input_shape) and (n,).
        attacks: names of shipped cards or suites, and cards.
        budgets: {norm: radii}.
        options: further fields of `Case`.
    """
    radii = dict(budgets or {})
    cards = [card for name in attacks for card in ([name] if isinstance(name, Card) else resolve(name))]
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


class Lines(nn.Module):
    """Two classes on [0, 1]^d: class 1 where the first coordinate exceeds ½, with logits (0, scale (x₁ − ½)).

    The distance of a point to the other class is |x₁ − ½| in every norm.
    """

    def __init__(self, dimension: int = 1, scale: float = 10.0) -> None:
        super().__init__()
        self.scale, self.bounds, self.classes, self.input_shape = scale, (0.0, 1.0), 2, (dimension,)

    def forward(self, x: Tensor) -> Tensor:
        margin = self.scale * (x[:, :1] - 0.5)
        return torch.cat([torch.zeros_like(margin), margin], 1)


class Frozen(Lines):
    """The same logits without a gradient where the last coordinate exceeds ½."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return torch.where(x[:, -1:] > 0.5, z.detach(), z)


def at_distances(gaps: Sequence[float] | Tensor, dimension: int = 1) -> tuple[Tensor, Tensor]:
    """Return points of class 0 of `Lines` at these distances from class 1, and their labels; float32."""
    x = torch.zeros(len(gaps), dimension)
    x[:, 0] = 0.5 - torch.as_tensor(gaps, dtype=torch.float32)
    return x, torch.zeros(len(gaps), dtype=torch.int64)


def own_card(folder: Path, body: str, *, name: str = "own", norm: str = "linf", kind: str = "budget") -> Card:
    """Return the card of a user's attack `fn(model, x, y, *, norm, eps, generator)` with this body."""
    lines = "\n    ".join(body.strip().splitlines())
    code = f"import torch\n\ndef fn(model, x, y, *, norm, eps, generator):\n    {lines}\n"
    (folder / f"{name}.py").write_text(code)
    values = {"implementation": f"python:{name}.py:fn", "source": str(folder), "kind": kind}
    return make_card({"name": name, "title": name, "norm": norm, **values}, "card")
