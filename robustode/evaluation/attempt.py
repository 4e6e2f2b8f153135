"""One attack at one budget on the samples of a shard: run, counted, judged, and tried again where memory runs out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from robustode.attacks.adapters.rng import forked_rng
from robustode.attacks.base import AttackResult, Randomness
from robustode.attacks.card import Card
from robustode.errors import AttackError
from robustode.evaluation.chunks import Searched, joined, out_of_memory, release
from robustode.evaluation.counting import Counted
from robustode.evaluation.rows import Outcome, Shard, Subject, messages_of
from robustode.evaluation.seeds import seed_of
from robustode.evaluation.stored import Stored


def attempt(
    subject: Subject,
    attack: Card | Stored,
    shard: Shard,
    todo: Tensor,
    eps: float | None,
    seed: int,
    rows: int | None = None,
) -> tuple[Outcome | str, float, int | None]:
    """Return what one attack at one budget achieved, or the message of the exception that it raised; its seconds; and,
    where memory ran out, how few samples had to be attacked together.

    The seconds are those of the attack; the judging comes after them. Where memory runs out, the attack begins anew,
    with the same draws, on half as many samples at once: what it finds is what `rows` of that size would have found.

    Args:
        rows: samples attacked together at most; None for all of them.

    Raises:
        MemoryError, RuntimeError: memory does not suffice for a single sample.
    """
    size = max(1, len(todo) if rows is None else min(rows, len(todo)))
    halved = None
    while True:
        clock = _Clock()
        try:
            return _once(subject, attack, shard, todo, eps, seed, size, clock), clock.seconds, halved
        except Exception as error:
            if not out_of_memory(error):
                text = str(error).strip().splitlines()
                return f"{type(error).__name__}: {text[0] if text else ''}"[:500], clock.seconds, halved
            if size == 1:
                raise
        size = halved = size // 2
        subject.counted.release()
        release()


class _Clock:
    """Seconds until now, or until it was stopped."""

    def __init__(self) -> None:
        self._started, self._ended = time.perf_counter(), None

    def stop(self) -> None:
        self._ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        return (time.perf_counter() if self._ended is None else self._ended) - self._started


def _once(
    subject: Subject,
    attack: Card | Stored,
    shard: Shard,
    todo: Tensor,
    eps: float | None,
    seed: int,
    size: int,
    clock: _Clock,
) -> Outcome:
    """Attack the samples, at most `size` at once, and judge what came back."""
    x, y, index = shard.x[todo], shard.y[todo], shard.index[todo.cpu()]
    draws = torch.Generator().manual_seed(seed_of(seed, subject.hash, attack.name, eps, shard.number))
    with forked_rng(draws):
        said = ("",) * len(x)
        if isinstance(attack, Stored):
            points, there = attack.points(index, x)
            said = tuple("" if found else "not in the stored set" for found in there.tolist())
            found = _counted(subject.counted, None, points)
        else:
            found = _search(subject.counted, attack, x, y, eps, size, _generators(attack, eps, index, seed, draws))
        clock.stop()
        if found.x_adv.shape != x.shape:
            raise AttackError("points returned", expected=f"shape {tuple(x.shape)}", got=tuple(found.x_adv.shape))
        verdict = subject.judge.judge(x, found.x_adv.to(x), y, norm=attack.norm, eps=eps)
    refused = messages_of(found.result, verdict)
    return Outcome(
        verdict=verdict,
        result=found.result,
        messages=tuple(own or other for own, other in zip(said, refused, strict=True)),
        forwards=found.forwards,
        backwards=found.backwards,
        nfe=found.nfe,
    )


def _search(
    counted: Counted, card: Card, x: Tensor, y: Tensor, eps: float | None, size: int, generators: Randomness
) -> Searched:
    """Run an attack on at most `size` samples at a time."""
    parts = []
    attack = card.build(eps) if len(x) else None
    for start in range(0, max(1, len(x)), size):
        rows = slice(start, start + size)
        own = generators[rows] if isinstance(generators, Sequence) else generators
        counted.reset()
        if attack is None:
            parts.append(_counted(counted, None, x))
            continue
        with guarded(counted.bare) if card.provider == "python" else nullcontext(), _searching(counted, card):
            result = attack(counted, x[rows].clone(), y[rows].clone(), generator=own)
        parts.append(_counted(counted, result, result.x_adv if result.returned is None else result.returned))
    return joined(parts)


def _searching(counted: Counted, card: Card) -> AbstractContextManager[None]:
    """The model as an attack may search on it.

    In a ball, every pass may be in the shorter precision of the search. The points of a minimal-norm attack lie on the
    boundary of the model that it sees, so that one of a library sees the model itself, and our own comes back to it.
    """
    return counted.searching(whole=card.kind == "budget" and card.implementation != "robustode:sensitivity")


def _counted(counted: Counted, result: AttackResult | None, points: Tensor) -> Searched:
    """What was found, with the passes that the boundary saw."""
    if result is None:
        counted.reset()
    forwards, backwards = _passes(counted, result, len(points))
    nfe = _evaluations(counted, forwards)
    return Searched(x_adv=points, result=result, forwards=forwards, backwards=backwards, nfe=nfe)


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
