"""One unit of work: one model, one attack, one shard of samples, at all budgets of the attack."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from robustode.attacks.base import AttackResult, Status
from robustode.attacks.cards import Card
from robustode.errors import AttackError
from robustode.evaluation.counting import Counted
from robustode.evaluation.judge import Judge, Verdict
from robustode.evaluation.records import canonical_json
from robustode.evaluation.stored import Stored


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
class Unit:
    """What a unit produced.

    Attributes:
        records: its rows.
        timings: one row for each budget.
        sample, x_adv, distance, pred: nearest adversarial of every sample that was broken.
    """

    records: pd.DataFrame
    timings: pd.DataFrame
    sample: Tensor
    x_adv: Tensor
    distance: Tensor
    pred: Tensor


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    verdict: Verdict
    result: AttackResult | None
    forwards: Tensor
    backwards: Tensor
    messages: tuple[str, ...]


def seed_of(*parts: Any) -> int:
    """Return a 63-bit seed that depends on all of `parts`."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _generators(card: Card, eps: float | None, subject: Subject, shard: Shard, seed: int, index: Tensor) -> Any:
    """One generator a sample for our own attacks; for adapted ones a single one of (seed, model, attack, shard)."""
    if card.library == "robustode":
        return [torch.Generator().manual_seed(seed_of(seed, card.name, eps, int(i))) for i in index]
    return torch.Generator().manual_seed(seed_of(seed, subject.hash, card.name, eps, shard.number))


def run_unit(
    subject: Subject,
    attack: Card | Stored,
    shard: Shard,
    *,
    radii: Sequence[float],
    data: str,
    seed: int,
    protocol: str,
) -> Unit:
    """Attack the correctly classified samples of a shard at every budget, judge what came back, and make the records.

    An attack that raises gives `error` rows with its message; the run goes on.
    """
    minimal = isinstance(attack, Stored) or attack.kind == "minimal"
    todo = (shard.clean_pred == shard.y).nonzero().squeeze(1)
    rows, timings = [], []
    best = torch.full((len(shard.y),), math.inf, dtype=torch.float64, device=shard.x.device)
    best_x, best_pred = shard.x.clone(), shard.clean_pred.clone()
    for eps in [None] if minimal else list(radii):
        started = time.perf_counter()
        outcome = _attempt(subject, attack, shard, todo, eps, seed)
        seconds = time.perf_counter() - started
        timings.append({"model": subject.label, "attack": attack.name, "norm": attack.norm, "eps": eps})
        timings[-1] |= {"shard": shard.number, "samples": len(todo), "seconds": seconds}
        if isinstance(outcome, _Outcome):
            verdict = outcome.verdict
            better = verdict.success & (verdict.distance < best[todo])
            best[todo[better]] = verdict.distance[better]
            best_x[todo[better]] = verdict.x_adv[better]
            best_pred[todo[better]] = verdict.pred[better]
        rows += _rows(subject, attack, shard, todo, eps, outcome, {"data": data, "seed": seed, "protocol": protocol})
    found = torch.isfinite(best)
    return Unit(
        records=pd.DataFrame(rows),
        timings=pd.DataFrame(timings),
        sample=shard.index[found.cpu()],
        x_adv=best_x[found].cpu(),
        distance=best[found].cpu(),
        pred=best_pred[found].cpu(),
    )


def _attempt(
    subject: Subject, attack: Card | Stored, shard: Shard, todo: Tensor, eps: float | None, seed: int
) -> _Outcome | str:
    """Return what one attack at one budget achieved, or the message of the exception that it raised."""
    x, y, index = shard.x[todo], shard.y[todo], shard.index[todo.cpu()]
    counted = subject.counted
    counted.reset()
    messages = ("",) * len(x)
    result = None
    try:
        if isinstance(attack, Stored):
            x_adv, there = attack.points(index, x)
            messages = tuple("" if found else "not in the stored set" for found in there.tolist())
        elif len(x) == 0:
            x_adv = x
        else:
            generator = _generators(attack, eps, subject, shard, seed, index)
            result = attack.build(eps)(counted, x, y, generator=generator)  # type: ignore[arg-type]
            x_adv = result.x_adv
        if x_adv.shape != x.shape:
            raise AttackError("points returned", expected=f"shape {tuple(x.shape)}", got=tuple(x_adv.shape))
        forwards, backwards = _passes(counted, result, len(x))
        counted.reset()
        verdict = subject.judge.judge(x, x_adv.to(x), y, norm=attack.norm, eps=eps)
    except Exception as error:
        text = str(error).strip().splitlines()
        return f"{type(error).__name__}: {text[0] if text else ''}"[:500]
    return _Outcome(
        verdict=verdict,
        result=result,
        forwards=forwards,
        backwards=backwards,
        messages=tuple(said or refused for said, refused in zip(messages, verdict.message, strict=True)),
    )


def _passes(counted: Counted, result: AttackResult | None, batch: int) -> tuple[Tensor, Tensor]:
    """Passes for each sample: the attack's own count where its total is what the boundary saw, else an equal share."""
    out = []
    for name, total in (("forwards", counted.forwards), ("backwards", counted.backwards)):
        own = None if result is None else getattr(result, name)
        agrees = own is not None and abs(float(own.sum()) - total) < 0.5
        out.append(own if own is not None and agrees else torch.full((batch,), total / max(batch, 1)).double())
    return out[0], out[1]


def _rows(
    subject: Subject,
    attack: Card | Stored,
    shard: Shard,
    todo: Tensor,
    eps: float | None,
    outcome: _Outcome | str,
    common: dict[str, Any],
) -> list[dict[str, Any]]:
    params = {"stored": attack.name} if isinstance(attack, Stored) else attack.params_at(eps)
    place = {int(row): i for i, row in enumerate(todo)}
    fixed = {
        "model": subject.label,
        "model_hash": subject.hash,
        "attack": attack.name,
        "params": canonical_json(params),
        "norm": attack.norm,
        "eps": eps,
        "target": None,
        **common,
    }
    index, label, pred = shard.index.tolist(), shard.y.tolist(), shard.clean_pred.tolist()
    margin = shard.clean_margin.tolist()
    rows = []
    for row in range(len(label)):
        clean = {"sample": index[row], "label": label[row], "clean_pred": pred[row], "clean_margin": margin[row]}
        i = place.get(row)
        if i is None:
            found = {"status": Status.MISCLASSIFIED.value, "distance": 0.0, "adv_pred": pred[row]}
            found |= {"adv_margin": margin[row], "forwards": 0.0, "backwards": 0.0, "nfe": 0.0, "message": ""}
            found |= {"converged": None, "kkt": None}
        elif isinstance(outcome, str):
            found = {"status": Status.ERROR.value, "distance": math.inf, "message": outcome}
            found |= dict.fromkeys(("adv_pred", "adv_margin", "forwards", "backwards", "nfe", "converged", "kkt"))
        else:
            found = _found(outcome, i, getattr(subject.counted, "nfe", None))
        rows.append({**fixed, **clean, **found})
    return rows


def _found(outcome: _Outcome, i: int, nfe: float | None) -> dict[str, Any]:
    verdict, result = outcome.verdict, outcome.result
    success = bool(verdict.success[i])
    forwards = float(outcome.forwards[i])
    kkt = None if result is None or result.kkt is None else float(result.kkt[i])
    return {
        "status": (Status.SUCCESS if success else Status.FAILED).value,
        "distance": float(verdict.distance[i]),
        "adv_pred": int(verdict.pred[i]),
        "adv_margin": float(verdict.margin[i]),
        "forwards": forwards,
        "backwards": float(outcome.backwards[i]),
        "nfe": None if nfe is None else forwards * nfe,
        "converged": None if result is None or result.converged is None else bool(result.converged[i]),
        "kkt": kkt if kkt is not None and math.isfinite(kkt) else None,
        "message": outcome.messages[i],
    }
