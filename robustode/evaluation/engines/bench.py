"""What computes units: models, samples and attacks in memory, in whatever process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from robustode.evaluation.engine import Unit, run_unit
from robustode.evaluation.engines.tasks import Task
from robustode.evaluation.footprint import fixed_bytes, footprint, rows_in
from robustode.evaluation.jobs import Attack, Ready, attacks_of
from robustode.evaluation.plan import Plan
from robustode.evaluation.rows import Shard, Subject

Rows = tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """Everything that the units of a run need, and nothing on disk.

    Attributes:
        subjects: the models.
        parts: for each of them, its samples in shards.
        attacks: in the order of the plan.
        radii: {norm: radii}.
        data, seed, protocol: as they stand in every record.
        rows: for each model, how many samples each attack may have together.
    """

    subjects: tuple[Subject, ...]
    parts: tuple[tuple[Shard, ...], ...]
    attacks: tuple[Attack, ...]
    radii: dict[str, tuple[float, ...]]
    data: str
    seed: int
    protocol: str
    rows: Rows

    def compute(self, task: Task, found: Tensor | None) -> Unit:
        """Run one unit; `found` is what the attacks before it in its cascade found."""
        attack = self.attacks[task.attack]
        return run_unit(
            self.subjects[task.model],
            attack,
            self.parts[task.model][task.shard],
            radii=self.radii[attack.norm],
            data=self.data,
            seed=self.seed,
            protocol=self.protocol,
            found=found,
            rows=self.rows[task.model][task.attack],
        )


def rows_of(plan: Plan, ready: Sequence[Ready], memory: int | None) -> Rows:
    """Return, for each model, how many samples each attack may have together; None for a whole shard.

    It follows from the plan and the budget alone, so that the records of a run do, too.

    Args:
        plan, ready: what runs.
        memory: bytes that one process may take; None for no limit.

    Raises:
        OptionError: one of them needs more for a single sample.
    """
    attacks, size = attacks_of(plan), plan.protocol.shard
    if memory is None:
        return ((None,) * len(attacks),) * len(ready)
    samples = fixed_bytes(plan.data.x)
    out = []
    for one in ready:
        module = one.planned.module
        found = []
        for attack in attacks:
            what = f"{attack.name} on {one.subject.label}"
            fits = rows_in(memory, what, footprint(module, attack, one.shards[0].x, samples), size)
            found.append(None if fits >= size else fits)
        out.append(tuple(found))
    return tuple(out)


def bench_of(plan: Plan, ready: Sequence[Ready], rows: Rows) -> Bench:
    """Return what computes the units of a plan in this process."""
    return Bench(
        subjects=tuple(one.subject for one in ready),
        parts=tuple(one.shards for one in ready),
        attacks=attacks_of(plan),
        radii=plan.budgets,
        data=plan.data.name,
        seed=plan.protocol.seed,
        protocol=plan.hash,
        rows=rows,
    )
