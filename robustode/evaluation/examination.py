"""What a runner asks of whatever examines a finished run, and the files in which the answers wait for its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from robustode.errors import RunError
from robustode.evaluation import shards
from robustode.evaluation.engine import Unit
from robustode.evaluation.rows import Shard, Subject
from robustode.files import read_json, write_json

PREFIX = "audit-"


def is_audit(attack: str) -> bool:
    """Whether an attack of the records is a check that broke something."""
    return attack.startswith(PREFIX)


def claimed(records: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the run's own attacks, without those of the audit."""
    return pd.DataFrame(records.loc[~records["attack"].str.startswith(PREFIX).to_numpy(dtype=bool)])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one check found on one model.

    Attributes:
        finding: JSON-able.
        units: (attack name, unit) for each norm in which it found or tried anything.
        seconds: that it took.
    """

    finding: dict[str, Any]
    units: list[tuple[str, Unit]]
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Beside:
    """What a check may look at beside the attacks of a run.

    Attributes:
        certificates: of the model, as `certificates.parquet` has them; None if there are none.
        audited: rows of the records that the checks before it added; none without certificates.
    """

    certificates: pd.DataFrame | None
    audited: pd.DataFrame


class Examination(Protocol):
    """Checks that look at a model after the attacks of a run; what they break becomes part of the run."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the checks, in order."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What audit.json says beside the findings."""
        ...

    def examine(
        self,
        name: str,
        subject: Subject,
        parts: Sequence[Shard],
        records: pd.DataFrame,
        common: dict[str, Any],
        beside: Beside,
    ) -> Answer:
        """Run one check on a model whose attacks have ended; `records` are its rows, `parts` its samples."""
        ...


def place(out: Path, model: str, check: str) -> Path:
    """Return the path of the file that holds a check's answer while the run is not finished."""
    return shards.place(out, model, f"{PREFIX}{check}", 0).with_suffix(".json")


def keep(out: Path, model: str, check: str, answer: Answer, facts: dict[str, Any]) -> None:
    """Write an answer of an examination with these facts; its JSON comes last, so that an answer with one is whole."""
    for attack, unit in answer.units:
        shards.write(shards.place(out, model, attack, 0), unit, keep_points=True)
    path = place(out, model, check)
    seconds = [{"model": model, "attack": f"{PREFIX}{check}", "norm": "", "shard": 0, "seconds": answer.seconds}]
    names = [name for name, _ in answer.units]
    write_json({"facts": facts, "finding": answer.finding, "attacks": names, "timings": seconds}, path)


def kept(out: Path, model: str, check: str, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return {finding, attacks, timings} of an answer; None if the check has not ended in an examination like this."""
    path = place(out, model, check)
    answer = read_json(path, RunError) if path.is_file() else None
    return answer if answer is not None and answer["facts"] == facts else None
