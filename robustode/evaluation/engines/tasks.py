"""The units of a run as tasks: in which order they run, which waits for which, and which part has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustode.attacks.card import Card
from robustode.evaluation import shards
from robustode.evaluation.jobs import attacks_of
from robustode.evaluation.plan import Plan
from robustode.evaluation.stored import Stored

Part = tuple[int, int]
WHOLE: Part = (0, 1)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One unit of work.

    Attributes:
        number: its place among all units of the run.
        model, attack, shard: places in the plan.
        label, name: of model and attack.
    """

    number: int
    model: int
    attack: int
    shard: int
    label: str
    name: str

    @property
    def words(self) -> str:
        """The unit as messages name it."""
        return f"{self.label} · {self.name} · shard {self.shard}"

    def place(self, out: Path) -> Path:
        """Return the path, without suffix, of its files in a run directory."""
        return shards.place(out, self.label, self.name, self.shard)


def groups_of(plan: Plan, part: Part = WHOLE) -> list[tuple[Task, ...]]:
    """Return the units of a plan in groups: within one each waits for those before it, between them none does.

    The attacks of a cascade on one shard are a group; every other unit is one of its own. Groups are in the order of
    their first units.

    Args:
        part: (i, n), only every n-th group, from the i-th; the parts share nothing and have all units together.
    """
    groups: dict[tuple, list[Task]] = {}
    attacks = attacks_of(plan)
    count = -(-len(plan.data) // plan.protocol.shard)
    for number, (m, a, shard) in enumerate(
        (m, a, shard) for m in range(len(plan.models)) for a in range(len(attacks)) for shard in range(count)
    ):
        label, attack = plan.models[m].label, attacks[a]
        one = Task(number=number, model=m, attack=a, shard=shard, label=label, name=attack.name)
        groups.setdefault(_key(one, attack), []).append(one)
    return [tuple(group) for group in groups.values()][part[0] :: part[1]]


def _key(task: Task, attack: Card | Stored) -> tuple:
    if isinstance(attack, Stored) or not attack.cascade:
        return (task.number,)
    return (task.model, task.shard, attack.norm, "cascade")


def missing(groups: Sequence[Sequence[Task]], out: Path) -> list[tuple[Task, ...]]:
    """Return the groups without the units that are on disk, and without groups of which all are."""
    rest = (tuple(task for task in group if not shards.is_done(task.place(out))) for group in groups)
    return [group for group in rest if group]
