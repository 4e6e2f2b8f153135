"""What the checks look at: one model, its samples, what the run's attacks found, and what the checks add to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustode.attacks.adapters.rng import forked_rng
from robustode.attacks.base import Attack
from robustode.attacks.card import Card
from robustode.attacks.norms import ball_tolerance
from robustode.audit.evidence import Evidence
from robustode.data import Data
from robustode.evaluation import records as records_file
from robustode.evaluation.attempt import guarded
from robustode.evaluation.engine import seed_of
from robustode.evaluation.judge import Verdict
from robustode.evaluation.rows import Shard, Subject
from robustode.models.base import Classifier

SHARE, LEAST = 0.01, 2.0  # s = max(2, 0.01 n)
AT_ONCE = 500  # rows attacked together


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model of a run under audit.

    Attributes:
        subject: the model (counted and bare), its judge and label.
        shard: all samples with the judge's clean answers; "row" means a position in it.
        records: the run's rows of this model; those of the audit are not among them.
        cards: the attacks of the run.
        budgets: {norm: radii}.
        common: {data, seed, protocol} of the records.
        evidence: what the checks found; it enters the records.
        transfer: (label, classifier) of other models named by the user.
        training: the training split, where it is known.
        full: whether all radii are looked at, not only the most telling one.
        certificates: of the model, as `certificates.parquet` has them; None if the run has none.
        audited: rows that the checks before this one added to the records; none without certificates.
    """

    subject: Subject
    shard: Shard
    records: pd.DataFrame
    cards: tuple[Card, ...]
    budgets: Mapping[str, Sequence[float]]
    common: Mapping[str, Any]
    evidence: Evidence = field(default_factory=Evidence)
    transfer: tuple[tuple[str, Classifier], ...] = ()
    training: Callable[[], Data | None] = lambda: None
    full: bool = False
    certificates: pd.DataFrame | None = None
    audited: pd.DataFrame = field(default_factory=records_file.empty)

    @property
    def model(self) -> Any:
        """The bare classifier, as deployed."""
        return self.subject.counted.bare

    @property
    def correct(self) -> Tensor:
        """Rows that are correctly classified, ascending, on the CPU."""
        return (self.shard.clean_pred == self.shard.y).nonzero().squeeze(1).cpu()

    @property
    def slack(self) -> float:
        """s = max(2, 0.01 n) for n correctly classified samples: attacking checks fail above it, warn above half."""
        return max(LEAST, SHARE * len(self.correct))

    def samples(self, rows: Tensor | Iterable[int]) -> tuple[int, ...]:
        """Return the indices in the full split of some rows."""
        picked = torch.as_tensor(list(rows) if not isinstance(rows, Tensor) else rows, dtype=torch.int64).cpu()
        return tuple(self.shard.index.cpu()[picked].tolist())

    def generator(self, check: str) -> torch.Generator:
        """Return a generator that depends on the run's seed, the model and the check."""
        return torch.Generator().manual_seed(seed_of(self.common["seed"], self.subject.hash, "audit", check))

    def distances(self, norm: str, *, without: Sequence[str] = ()) -> np.ndarray:
        """(rows,) smallest distance that the run's attacks found in a norm, +inf where nothing did; 0 where the clean
        answer is wrong. `without` names attacks that are left out."""
        own = self.records[(self.records["norm"] == norm) & ~self.records["attack"].isin(list(without))]
        least = pd.Series(own.groupby("sample")["distance"].min())
        found = least.reindex(self.shard.index.tolist()).to_numpy(dtype=float, na_value=np.inf)
        wrong = (self.shard.clean_pred != self.shard.y).cpu().numpy()
        return np.where(wrong, 0.0, found)

    def survivors(self, norm: str, eps: float, *, without: Sequence[str] = ()) -> Tensor:
        """Rows that are correctly classified and that no attack of the run broke at ε."""
        limit = eps + ball_tolerance(eps, tuple(self.model.bounds), self.shard.x[0].numel(), norm)
        return torch.from_numpy((self.distances(norm, without=without) > limit).nonzero()[0])

    def radii(self, norm: str) -> tuple[float, ...]:
        """Radii at which an attacking check looks: with `full` all that leave survivors; else the most telling one,
        whose claimed robust accuracy is nearest to half of the clean accuracy, the larger on ties."""
        counts = {eps: len(self.survivors(norm, eps)) for eps in self.budgets.get(norm, ())}
        left = {eps: count for eps, count in counts.items() if count}
        if self.full or not left:
            return tuple(left)
        half = len(self.correct) / 2
        return (min(left, key=lambda eps: (abs(left[eps] - half), -eps)),)

    def take(self, check: str, norm: str, eps: float | None, rows: Tensor, x_adv: Tensor) -> Verdict:
        """Judge points that a check found for some rows and keep them as evidence.

        Args:
            check: id of the check; its rows in the records are of the attack "audit-CHECK-NORM".
            norm, eps: ball in which the points must lie; eps None for any distance.
            rows: (k,) rows, none twice.
            x_adv: (k, *input_shape).

        Returns:
            The judge's verdict on the k points.
        """
        here = rows.to(self.shard.x.device)
        verdict = self.subject.judge.judge(
            self.shard.x[here], x_adv.to(self.shard.x), self.shard.y[here], norm=norm, eps=eps
        )
        self.evidence.add(self, check, norm, eps, rows, verdict)
        return verdict

    def attack(
        self, check: str, attack: Attack, rows: Tensor, *, model: Classifier | None = None, name: str = ""
    ) -> Tensor:
        """Run an attack of a check on some rows, on the model or on another one; the judge decides on the model itself.

        Args:
            check: id of the check.
            attack: with its norm and ε.
            rows: (k,) rows.
            model: what the attack sees; the counted model if None.
            name: what its draws depend on, beside the check.

        Returns:
            (k,) bool on the CPU: broken.
        """
        if len(rows) == 0:
            return torch.zeros(0, dtype=torch.bool)
        victim = self.subject.counted if model is None else model
        draws = torch.Generator().manual_seed(
            seed_of(self.common["seed"], self.subject.hash, "audit", check, name, attack.norm, attack.eps)
        )
        broken = []
        for part in rows.split(AT_ONCE):
            here = part.to(self.shard.x.device)
            x, y = self.shard.x[here], self.shard.y[here]
            with forked_rng(draws), guarded(self.model):
                result = attack(victim, x, y, generator=draws)
            points = result.x_adv if result.returned is None else result.returned
            broken.append(self.take(check, attack.norm, attack.eps, part, points).success.cpu())
        return torch.cat(broken)
