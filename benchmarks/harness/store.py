"""Runs on disk: one parquet for each model, norm, set of images and attack; what is there is not computed again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from robustode.attacks.card import Card
from robustode.errors import RobustODEError
from robustode.evaluation.engine import run_unit
from robustode.evaluation.records import sort, validate
from robustode.evaluation.rows import Shard
from robustode.evaluation.shards import safe
from robustode.files import atomic, write_json

from .configs import Config
from .subjects import Case, Limited

_WARM = "BrendelBethge"  # it compiles at its first call


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the runs of one model, norm and set of images lie.

    Attributes:
        out: the benchmark's folder.
        model: label of the model.
        norm: "l1", "l2" or "linf".
        part: "report", "dev", or "eps-0.05" for attacks inside a ball.
    """

    out: Path
    model: str
    norm: str
    part: str

    @property
    def folder(self) -> Path:
        return self.out / "runs" / safe(self.model) / self.norm / self.part

    def file(self, name: str, suffix: str) -> Path:
        return self.folder / f"{safe(name)}{suffix}"


class Timed:
    """A card whose attack notes the CPU and wall seconds of its calls, without those of the judge."""

    def __init__(self, card: Card) -> None:
        self.card, self.cpu, self.wall = card, 0.0, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.card, name)

    def build(self, eps: float | None) -> Callable[..., Any]:
        attack = self.card.build(eps)

        def call(*args: Any, **kwargs: Any) -> Any:
            cpu, wall = time.process_time(), time.perf_counter()
            try:
                return attack(*args, **kwargs)
            finally:
                self.cpu += time.process_time() - cpu
                self.wall += time.perf_counter() - wall

        return call


def digest(config: Config, case: Case, shard: Shard, eps: float | None) -> str:
    """Return what a stored run must have been made from to be used: card, model, images, radius.

    Our own code is not in it: name what is to be computed again.
    """
    resolved = {key: value for key, value in config.card.resolved().items() if key not in ("title", "paper", "code")}
    text = json.dumps([resolved, case.subject.hash, shard.index.tolist(), eps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stored(place: Place, config: Config, made_from: str) -> pd.DataFrame | None:
    """Return the run on disk; None if there is none or it was made from something else."""
    path = place.file(config.name, ".parquet")
    if not path.is_file():
        return None
    frame = pd.read_parquet(path)
    return frame if frame["digest"].iloc[0] == made_from else None


def reason_not_run(place: Place, name: str) -> dict[str, Any] | None:
    """Return {reason, limit} of a run that was left out; None if there is no such note."""
    path = place.file(name, ".json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def leave_out(place: Place, config: Config, reason: str, limit: float) -> None:
    """Note why a configuration was not run."""
    write_json(
        {"attack": config.name, "peer": config.peer, "reason": reason, "limit": limit}, place.file(config.name, ".json")
    )


def run(
    place: Place,
    config: Config,
    case: Case,
    shard: Shard,
    *,
    limit: float,
    eps: float | None = None,
    redo: Sequence[str] = (),
) -> pd.DataFrame | None:
    """Return the run of a configuration, from disk or computed now; None, with the reason noted, if it did not end.

    Args:
        place: where it lies.
        config: the attack.
        case, shard: the model and the images.
        limit: CPU seconds after which the attack is stopped.
        eps: radius of an attack inside a ball.
        redo: names of attacks or configurations that are computed again.
    """
    made_from = digest(config, case, shard, eps)
    again = config.name in redo or config.peer in redo
    if not again and (found := stored(place, config, made_from)) is not None:
        return found
    note = reason_not_run(place, config.name)
    if note is not None and not again and note["limit"] >= limit and note["reason"].startswith("more than"):
        return None
    counted = case.subject.counted
    timed = Timed(config.card)
    _warm(config, case, shard)
    if isinstance(counted, Limited):
        counted.until = time.process_time() + limit
    try:
        unit = run_unit(
            case.subject, timed, shard, radii=[] if eps is None else [eps], data=case.data, seed=0, protocol="bench"
        )
    finally:
        if isinstance(counted, Limited):
            counted.until = float("inf")
    frame = sort(validate(unit.records))
    failed = frame.loc[frame.status == "error", "message"]
    if len(failed):
        text = failed.iloc[0]
        over = text.startswith("OverLimit")
        leave_out(place, config, f"more than {limit / 60:.3g} CPU min" if over else text, limit)
        return None
    frame = frame.assign(
        digest=made_from, peer=config.peer, ours=config.ours, default=config.default, cpu=timed.cpu, wall=timed.wall
    )
    with atomic(place.file(config.name, ".parquet")) as temporary:
        frame.to_parquet(temporary, index=False)
    place.file(config.name, ".json").unlink(missing_ok=True)
    return frame


def _warm(config: Config, case: Case, shard: Shard) -> None:
    """Let what compiles at the first call compile, outside the time that is measured."""
    if _WARM in config.card.implementation:
        params = {**config.card.params, "steps": 2}
        with contextlib.suppress(RobustODEError):  # numba is missing: the run itself will say so
            attack = config.card.model_copy(update={"params": params}).build(None)
            attack(case.subject.counted, shard.x[:2], shard.y[:2])
