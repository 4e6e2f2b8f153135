"""From what an attack achieved on a shard to the rows of the records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robustode.attacks.base import AttackResult, Status
from robustode.attacks.card import Card
from robustode.evaluation.counting import Counted
from robustode.evaluation.judge import Judge, Verdict
from robustode.evaluation.records import canonical_json
from robustode.evaluation.stored import Stored

CLAIMED = "the attack claims success"  # how the message ends where it does so of a point that the judge refuses


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The samples of one unit, on the model's device, with the judge's clean answers.

    Attributes:
        number: which shard.
        x, y, index: clean inputs, labels, indices in the full split.
        clean_pred, clean_margin: the judge's answer at the clean inputs.
    """

    number: int
    x: Tensor
    y: Tensor
    index: Tensor
    clean_pred: Tensor
    clean_margin: Tensor


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under evaluation."""

    label: str
    hash: str
    counted: Counted
    judge: Judge


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one attack at one budget achieved on the correctly classified samples of a shard.

    Attributes:
        verdict: the judge's.
        result: what the attack said; None for stored points.
        forwards, backwards: (batch,) float64, passes for each sample.
        nfe: (batch,) float64, evaluations of the right-hand side for each sample, where the model says.
        messages: one for each sample, "" if there is nothing to say.
    """

    verdict: Verdict
    result: AttackResult | None
    forwards: Tensor
    backwards: Tensor
    nfe: Tensor | None
    messages: tuple[str, ...]


def make_rows(
    subject: Subject,
    attack: Card | Stored,
    shard: Shard,
    todo: Tensor,
    eps: float | None,
    outcome: Outcome | str,
    common: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return the records of one attack at one budget, in the order of the shard's samples.

    Samples that are correctly classified and not among `todo` were not attacked: they were broken before, in a cascade.
    """
    fixed = {
        "model": subject.label,
        "model_hash": subject.hash,
        "attack": attack.name,
        "params": canonical_json(attack.params_at(eps)),
        "norm": attack.norm,
        "eps": eps,
        "target": None,
        **common,
    }
    place = {int(row): i for i, row in enumerate(todo)}
    clean = (shard.index, shard.y, shard.clean_pred, shard.clean_margin)
    rows = []
    for row, (sample, label, pred, margin) in enumerate(zip(*(t.tolist() for t in clean), strict=True)):
        if label != pred:
            found = _misclassified(pred, margin)
        elif row not in place:
            found = _skipped()
        elif isinstance(outcome, str):
            found = _failed_to_run(outcome)
        else:
            found = _found(outcome, place[row])
        answers = {"sample": sample, "label": label, "clean_pred": pred, "clean_margin": margin}
        rows.append({**fixed, **answers, **found})
    return rows


def _misclassified(pred: int, margin: float) -> dict[str, Any]:
    unspent = dict.fromkeys(("forwards", "backwards", "nfe"), 0.0)
    answer = {"status": Status.MISCLASSIFIED.value, "distance": 0.0, "adv_pred": pred, "adv_margin": margin}
    return {**answer, **unspent, "converged": None, "kkt": None, "message": ""}


def _skipped() -> dict[str, Any]:
    unspent = dict.fromkeys(("forwards", "backwards", "nfe"), 0.0)
    unknown = dict.fromkeys(("adv_pred", "adv_margin", "converged", "kkt"))
    return {"status": Status.SKIPPED.value, "distance": math.inf, "message": "", **unspent, **unknown}


def _failed_to_run(message: str) -> dict[str, Any]:
    unknown = ("adv_pred", "adv_margin", "forwards", "backwards", "nfe", "converged", "kkt")
    return {"status": Status.ERROR.value, "distance": math.inf, "message": message, **dict.fromkeys(unknown)}


def _found(outcome: Outcome, i: int) -> dict[str, Any]:
    verdict, result = outcome.verdict, outcome.result
    kkt = math.nan if result is None or result.kkt is None else float(result.kkt[i])
    return {
        "status": (Status.SUCCESS if bool(verdict.success[i]) else Status.FAILED).value,
        "distance": float(verdict.distance[i]),
        "adv_pred": int(verdict.pred[i]),
        "adv_margin": float(verdict.margin[i]),
        "forwards": float(outcome.forwards[i]),
        "backwards": float(outcome.backwards[i]),
        "nfe": None if outcome.nfe is None else float(outcome.nfe[i]),
        "converged": None if result is None or result.converged is None else bool(result.converged[i]),
        "kkt": kkt if math.isfinite(kkt) else None,
        "message": outcome.messages[i],
    }


def messages_of(result: AttackResult | None, verdict: Verdict) -> tuple[str, ...]:
    """Return what is to be said of each point: why the judge refused it, and whether the attack claims that it is a
    success although it is none."""
    if result is None:
        return verdict.message
    claims = (result.success if result.claimed is None else result.claimed).tolist()
    return tuple(
        "; ".join(part for part in (refused, CLAIMED if claim and not success else "") if part)
        for refused, claim, success in zip(verdict.message, claims, verdict.success.tolist(), strict=True)
    )
