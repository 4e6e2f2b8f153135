"""The work of a run: its models with their clean answers, its attacks, and the units that they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustode.attacks.card import Card
from robustode.evaluation import shards
from robustode.evaluation.clean import CleanAccuracy
from robustode.evaluation.plan import Plan
from robustode.evaluation.planned import PlannedModel
from robustode.evaluation.rows import Shard, Subject
from robustode.evaluation.stored import Stored

Attack = Card | Stored


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A model with its clean answers."""

    planned: PlannedModel
    subject: Subject
    clean: CleanAccuracy
    shards: tuple[Shard, ...]


def attacks_of(plan: Plan) -> tuple[Attack, ...]:
    """Return the cards, then the stored sets, in the order in which they run."""
    return (*plan.attacks.cards, *plan.attacks.stored)


def places_of(plan: Plan, models: Sequence[PlannedModel], out: Path) -> list[Path]:
    """Return the places of the units of some models, in the order of the jobs."""
    numbers = range(math.ceil(len(plan.data) / plan.protocol.shard))
    attacks = attacks_of(plan)
    return [
        shards.place(out, model.label, one.name, number) for model in models for one in attacks for number in numbers
    ]
