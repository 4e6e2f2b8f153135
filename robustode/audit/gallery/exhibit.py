"""One exhibit: a model, or a model and an attack, of which it is known whether its numbers deserve belief."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from robustode.attacks.adapters.rng import forked_rng
from robustode.attacks.card import Card
from robustode.audit.case import Case
from robustode.audit.check import Check
from robustode.audit.checks import CHECKS
from robustode.audit.finding import Finding
from robustode.data import Data
from robustode.errors import OptionError
from robustode.evaluation import records as records_file
from robustode.evaluation.cascade import smallest
from robustode.evaluation.counting import Counted
from robustode.evaluation.engine import run_unit, seed_of
from robustode.evaluation.judge import Judge
from robustode.evaluation.rows import Shard, Subject
from robustode.models.base import Classifier

KINDS, HALVES = ("impostor", "honest"), ("development", "held-out")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What an exhibit puts before the checks.

    Attributes:
        model: classifier in eval mode.
        x, y: samples (n, *input_shape) and labels (n,).
        cards: attacks of the run.
        budgets: {norm: radii}.
        transfer: (label, classifier) of other models that the user names.
        training: training split; None if it is not known.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    cards: tuple[Card, ...]
    budgets: Mapping[str, Sequence[float]]
    transfer: tuple[tuple[str, Classifier], ...] = ()
    training: Data | None = None


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """An exhibit of the gallery.

    Attributes:
        name: unique in the gallery.
        about: what it is, in a line.
        kind: "impostor" or "honest".
        half: "development" or "held-out".
        disease: ids of the checks that must fail; () for an honest one.
        brief: whether only the cheap checks and those of the disease are asked, because every solve costs.
        seed: of training, samples and draws.
        make: seed ↦ scene; the tiny model is trained or built here.

    Raises:
        OptionError: an unknown kind, half or check, an impostor without a disease, or an honest model with one.
    """

    name: str
    about: str
    kind: str = "impostor"
    half: str = "development"
    disease: tuple[str, ...] = ()
    brief: bool = False
    seed: int = 0
    make: Callable[[int], Scene] = field(repr=False)

    def __post_init__(self) -> None:
        ids = tuple(check.id for check in CHECKS)
        for what, value, allowed in (("kind", self.kind, KINDS), ("half", self.half, HALVES)):
            if value not in allowed:
                raise OptionError(f"{what} of exhibit '{self.name}'", expected=" or ".join(allowed), got=value)
        if unknown := [name for name in self.disease if name not in ids]:
            raise OptionError(f"disease of exhibit '{self.name}'", expected=f"checks of {', '.join(ids)}", got=unknown)
        if (self.kind == "honest") == bool(self.disease):
            expected = "checks that must fail for an impostor, none for an honest model"
            raise OptionError(f"disease of exhibit '{self.name}'", expected=expected, got=self.disease)


def examine(exhibit: Exhibit, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Build an exhibit, run its attacks on all samples, and ask the checks; nothing is written to disk."""
    case = case_of(exhibit)
    findings = []
    for check in checks:
        if exhibit.brief and not check.cheap and check.id not in exhibit.disease:
            continue
        draws = torch.Generator().manual_seed(seed_of(exhibit.seed, exhibit.name, "audit", check.id))
        with forked_rng(draws):  # of a randomised model, too
            findings.append(check(case))
    return findings


def case_of(exhibit: Exhibit) -> Case:
    """Return the case of an exhibit, its attacks run."""
    scene = exhibit.make(exhibit.seed)
    common = {"data": "gallery", "seed": exhibit.seed, "protocol": "gallery"}
    model: Any = scene.model
    judge = Judge(model)
    with forked_rng(torch.Generator().manual_seed(seed_of(exhibit.seed, exhibit.name, "clean"))):
        pred, margin = judge.answer(scene.x, scene.y)
    shard = Shard(
        number=0, x=scene.x, y=scene.y, index=torch.arange(len(scene.y)), clean_pred=pred, clean_margin=margin
    )
    subject = Subject(label=exhibit.name, hash=exhibit.name, counted=Counted(model), judge=judge)
    cards = tuple(card for card in scene.cards if not card.needs.unmet(model))
    return Case(
        subject=subject,
        shard=shard,
        records=_attacked(subject, cards, shard, scene.budgets, common),
        cards=cards,
        budgets=scene.budgets,
        common=common,
        transfer=scene.transfer,
        training=lambda: scene.training,
    )


def _attacked(
    subject: Subject,
    cards: Sequence[Card],
    shard: Shard,
    budgets: Mapping[str, Sequence[float]],
    common: dict[str, Any],
) -> pd.DataFrame:
    """Return the records of attacks that are run one after another, those of a cascade on what still stands."""
    frames: list[tuple[Card, pd.DataFrame]] = []
    for card in cards:
        before = [frame for other, frame in frames if other.cascade and other.norm == card.norm]
        found = smallest(before, shard.index.tolist()) if card.cascade else None
        unit = run_unit(subject, card, shard, radii=budgets[card.norm], found=found, **common)
        frames.append((card, unit.records))
    return records_file.validate(pd.concat([frame for _, frame in frames], ignore_index=True))
