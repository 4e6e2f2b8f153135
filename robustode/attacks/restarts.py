"""An attack run several times with other draws, each time on the samples that are still standing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from robustode.attacks.base import Attack, AttackResult, Randomness, Status
from robustode.errors import AttackError
from robustode.models.base import Classifier


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """The attack inside it, run up to `restarts` times; a sample's result is that of the run that broke it.

    A sample that no run breaks keeps the result of the first. Passes of all runs are added up.

    Args:
        attack: any attack in a ball; one that draws nothing does the same each time.
        restarts: runs, ≥ 1.

    Raises:
        AttackError: fewer than one run, or an attack without a ball: it has no sample that stands.
    """

    attack: Attack
    restarts: int

    def __post_init__(self) -> None:
        if isinstance(self.restarts, bool) or not isinstance(self.restarts, int) or self.restarts < 1:
            raise AttackError("restarts", expected="an integer ≥ 1", got=repr(self.restarts))
        if self.eps is None:
            raise AttackError("restarts", expected="an attack with a budget eps", got="a minimal-norm attack")

    @property
    def norm(self) -> str:
        return self.attack.norm

    @property
    def eps(self) -> float | None:
        return self.attack.eps

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        generator: Randomness = None,
    ) -> AttackResult:
        """Attack x (batch, *input_shape) with labels y; `generator` (default seed 0) draws on from run to run."""
        source = torch.Generator().manual_seed(0) if generator is None else generator
        kept = self.attack(model, x, y, target=target, generator=source)
        for _ in range(self.restarts - 1):
            rows = [i for i, status in enumerate(kept.status) if status is Status.FAILED]
            if not rows:
                break
            own = [source[i] for i in rows] if isinstance(source, Sequence) else source
            goal = None if target is None else target[rows]
            kept = _merged(kept, self.attack(model, x[rows], y[rows], target=goal, generator=own), rows)
        return kept


_PASSES = ("forwards", "backwards", "nfe")


def _merged(kept: AttackResult, new: AttackResult, rows: Sequence[int]) -> AttackResult:
    """Return the result so far with the successes of a further run on some rows, and its passes added."""
    better = [i for i, status in enumerate(new.status) if status is Status.SUCCESS]
    into = [rows[i] for i in better]
    status = list(kept.status)
    for i in into:
        status[i] = Status.SUCCESS
    values: dict[str, Any] = {"status": tuple(status)}
    for name in (field.name for field in fields(kept) if field.name != "status"):
        old, found = getattr(kept, name), getattr(new, name)
        if old is None or found is None:
            values[name] = None
            continue
        values[name] = old.clone()
        if name in _PASSES:
            values[name][list(rows)] += found
        else:
            values[name][into] = found[better]
    return AttackResult(**values)
