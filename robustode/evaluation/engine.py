"""One unit of work: one model, one attack, one shard of samples, at all budgets of the attack."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from robustode.attacks.adapters.rng import forked_rng
from robustode.attacks.base import AttackResult, Randomness
from robustode.attacks.card import Card
from robustode.attacks.norms import ball_tolerance
from robustode.errors import AttackError
from robustode.evaluation.counting import Counted
from robustode.evaluation.judge import Verdict
from robustode.evaluation.rows import Outcome, Shard, Subject, make_rows, messages_of
from robustode.evaluation.stored import Stored


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


def seed_of(*parts: Any) -> int:
    """Return a 63-bit seed that depends on all of `parts`."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def run_unit(
    subject: Subject,
    attack: Card | Stored,
    shard: Shard,
    *,
    radii: Sequence[float],
    data: str,
    seed: int,
    protocol: str,
    found: Tensor | None = None,
) -> Unit:
    """Attack the correctly classified samples of a shard at every budget, judge what came back, and make the records.

    Every random draw, also those of a randomised model, follows from the seed, the model, the attack, its budget and
    the shard. An attack that raises gives `error` rows with its message; the run goes on.

    Args:
        found: (samples,) float64, in a cascade the distances that the attacks before it found, +inf where none did. The
            attack is then started, at each radius, only on the samples that stand there; one without a radius on those
            that stand at the smallest. Its own success at a smaller radius counts, too. The other rows are `skipped`.
    """
    every = (shard.clean_pred == shard.y).nonzero().squeeze(1)
    common = {"data": data, "seed": seed, "protocol": protocol}
    best = _Best(shard)
    rows, timings = [], []
    for eps in [None] if attack.kind == "minimal" else list(radii):
        todo = every
        if found is not None:
            known, radius = torch.minimum(found.to(best.distance), best.distance), min(radii) if eps is None else eps
            todo = every[known[every] > radius + _tolerance(subject, shard, radius, attack.norm)]
        outcome, seconds = _attempt(subject, attack, shard, todo, eps, seed)
        if isinstance(outcome, Outcome):
            best.take(todo, outcome.verdict)
        rows += make_rows(subject, attack, shard, todo, eps, outcome, common)
        place = {"model": subject.label, "attack": attack.name, "norm": attack.norm, "eps": eps, "shard": shard.number}
        timings.append({**place, "samples": len(todo), "seconds": seconds})
    return best.unit(shard, pd.DataFrame(rows), pd.DataFrame(timings))


def _tolerance(subject: Subject, shard: Shard, radius: float, norm: str) -> float:
    size = shard.x[0].numel() if len(shard.x) else 1
    return ball_tolerance(radius, subject.counted.bounds, size, norm)


class _Best:
    """The nearest adversarial of every sample of a shard so far."""

    def __init__(self, shard: Shard) -> None:
        self.distance = torch.full((len(shard.y),), math.inf, dtype=torch.float64, device=shard.x.device)
        self.x, self.pred = shard.x.clone(), shard.clean_pred.clone()

    def take(self, rows: Tensor, verdict: Verdict) -> None:
        better = verdict.success & (verdict.distance < self.distance[rows])
        self.distance[rows[better]] = verdict.distance[better]
        self.x[rows[better]] = verdict.x_adv[better]
        self.pred[rows[better]] = verdict.pred[better]

    def unit(self, shard: Shard, records: pd.DataFrame, timings: pd.DataFrame) -> Unit:
        found = torch.isfinite(self.distance)
        return Unit(
            records=records,
            timings=timings,
            sample=shard.index[found.cpu()],
            x_adv=self.x[found].cpu(),
            distance=self.distance[found].cpu(),
            pred=self.pred[found].cpu(),
        )


def _attempt(
    subject: Subject, attack: Card | Stored, shard: Shard, todo: Tensor, eps: float | None, seed: int
) -> tuple[Outcome | str, float]:
    """Return what one attack at one budget achieved, or the message of the exception that it raised; and its seconds.

    The seconds are those of the attack; the judging comes after them.
    """
    x, y, index = shard.x[todo], shard.y[todo], shard.index[todo.cpu()]
    subject.counted.reset()
    draws = torch.Generator().manual_seed(seed_of(seed, subject.hash, attack.name, eps, shard.number))
    started, seconds = time.perf_counter(), None
    try:
        with forked_rng(draws):
            result, x_adv, said = None, x, ("",) * len(x)
            if isinstance(attack, Stored):
                x_adv, there = attack.points(index, x)
                said = tuple("" if found else "not in the stored set" for found in there.tolist())
            elif len(x):
                randomness = _generators(attack, eps, index, seed, draws)
                with guarded(subject.counted.bare) if attack.provider == "python" else nullcontext():
                    result = attack.build(eps)(subject.counted, x.clone(), y.clone(), generator=randomness)
                x_adv = result.x_adv if result.returned is None else result.returned
            seconds = time.perf_counter() - started
            forwards, backwards = _passes(subject.counted, result, len(x))
            nfe = _evaluations(subject.counted, forwards)
            if x_adv.shape != x.shape:
                raise AttackError("points returned", expected=f"shape {tuple(x.shape)}", got=tuple(x_adv.shape))
            verdict = subject.judge.judge(x, x_adv.to(x), y, norm=attack.norm, eps=eps)
    except Exception as error:
        text = str(error).strip().splitlines()
        return f"{type(error).__name__}: {text[0] if text else ''}"[:500], seconds or time.perf_counter() - started
    messages = tuple(own or refused for own, refused in zip(said, messages_of(result, verdict), strict=True))
    passes = {"forwards": forwards, "backwards": backwards, "nfe": nfe}
    return Outcome(verdict=verdict, result=result, messages=messages, **passes), seconds


@contextmanager
def guarded(module: Any) -> Iterator[None]:
    """Raise `AttackError` if what runs inside changed the model's tensors, after putting them back."""
    if not isinstance(module, torch.nn.Module):
        yield
        return
    kept = {name: value.detach().clone() for name, value in module.state_dict().items()}
    try:
        yield
    finally:
        now = module.state_dict()
        changed = [name for name, value in kept.items() if not torch.equal(value, now[name])]
        if changed:
            module.load_state_dict(kept)
    if changed:
        raise AttackError("the attack changed the model", expected="the model as it was", got=f"other {changed[0]}")


def _generators(card: Card, eps: float | None, index: Tensor, seed: int, shared: torch.Generator) -> Randomness:
    """One generator a sample for our own attacks, whose draws then do not depend on batch-mates; else the unit's."""
    if card.provider == "robustode":
        return [torch.Generator().manual_seed(seed_of(seed, card.name, eps, int(i))) for i in index]
    return shared


def _passes(counted: Counted, result: AttackResult | None, batch: int) -> tuple[Tensor, Tensor]:
    """Passes for each sample: the attack's own count where its total is what the boundary saw, else an equal share."""
    out = []
    for name, total in (("forwards", counted.forwards), ("backwards", counted.backwards)):
        own = None if result is None else getattr(result, name)
        own = None if own is None else own.double() * counted.draws
        agrees = own is not None and abs(float(own.sum()) - total) < 0.5
        share = torch.full((batch,), total / max(batch, 1), dtype=torch.float64)
        out.append(own if own is not None and agrees else share)
    return out[0], out[1]


def _evaluations(counted: Counted, forwards: Tensor) -> Tensor | None:
    """Evaluations of the right-hand side for each sample.

    On a fixed grid passes times their number; under an adaptive solver those of the sample's own row where every pass
    had the whole batch, else the total shared over the samples as the forwards are.
    """
    if counted.nfe is not None:
        return forwards * counted.nfe
    own, total = counted.row_evaluations, counted.evaluations
    if own is not None and len(own) == len(forwards):
        return own
    return None if total is None else forwards * (total / max(counted.forwards, 1))
