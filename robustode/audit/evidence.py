"""What the checks broke, as units of the run: rows of the records and points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from robustode.attacks.base import Status
from robustode.evaluation.engine import Unit
from robustode.evaluation.examination import PREFIX
from robustode.evaluation.judge import Verdict
from robustode.evaluation.records import canonical_json

if TYPE_CHECKING:
    from robustode.audit.case import Case


def attack_name(check: str, norm: str) -> str:
    """Return what the records call the points that a check found."""
    return f"{PREFIX}{check}-{norm}"


@dataclass
class _Points:
    """The nearest point of each row that was tried, at one radius."""

    tried: Tensor
    distance: Tensor
    x: Tensor
    pred: Tensor
    margin: Tensor


class Evidence:
    """Points that checks found, by check, norm and radius; of a row the nearest is kept."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, float | None], _Points] = {}

    def add(self, case: Case, check: str, norm: str, eps: float | None, rows: Tensor, verdict: Verdict) -> None:
        """Take in judged points for some rows."""
        shard = case.shard
        points = self._found.get((check, norm, eps))
        if points is None:
            points = _Points(
                tried=torch.zeros(len(shard.y), dtype=torch.bool),
                distance=torch.full((len(shard.y),), math.inf, dtype=torch.float64),
                x=shard.x.cpu().clone(),
                pred=shard.clean_pred.cpu().clone(),
                margin=shard.clean_margin.cpu().double().clone(),
            )
            self._found[check, norm, eps] = points
        rows = rows.cpu()
        points.tried[rows] = True
        better = verdict.success.cpu() & (verdict.distance.cpu() < points.distance[rows])
        into = rows[better]
        points.distance[into] = verdict.distance.cpu()[better]
        points.x[into] = verdict.x_adv.cpu()[better]
        points.pred[into] = verdict.pred.cpu()[better]
        points.margin[into] = verdict.margin.cpu()[better]

    def broken(self, check: str, norm: str, eps: float | None) -> Tensor:
        """Rows that a check broke."""
        points = self._found.get((check, norm, eps))
        return torch.zeros(0, dtype=torch.int64) if points is None else points.distance.isfinite().nonzero().squeeze(1)

    def points(self, check: str, norm: str, eps: float | None) -> list[Tensor]:
        """Return the points that broke rows, in the order of the rows."""
        points = self._found.get((check, norm, eps))
        return [] if points is None else list(points.x[points.distance.isfinite()])

    def units(self, case: Case, check: str) -> list[tuple[str, Unit]]:
        """Return (attack name, unit) for each norm in which a check found anything."""
        norms = dict.fromkeys(norm for found, norm, _ in self._found if found == check)
        return [(attack_name(check, norm), self._unit(case, check, norm)) for norm in norms]

    def _unit(self, case: Case, check: str, norm: str) -> Unit:
        by_radius = {eps: points for (c, n, eps), points in self._found.items() if (c, n) == (check, norm)}
        rows = [row for eps, points in by_radius.items() for row in _rows(case, check, norm, eps, points)]
        best = torch.stack([points.distance for points in by_radius.values()]).min(0)
        stack = {name: torch.stack([getattr(p, name) for p in by_radius.values()]) for name in ("x", "pred")}
        found = best.values.isfinite().nonzero().squeeze(1)
        return Unit(
            records=pd.DataFrame(rows),
            timings=pd.DataFrame([]),
            sample=case.shard.index.cpu()[found],
            x_adv=stack["x"][best.indices[found], found],
            distance=best.values[found],
            pred=stack["pred"][best.indices[found], found],
        )


def _rows(case: Case, check: str, norm: str, eps: float | None, points: _Points) -> list[dict[str, Any]]:
    """Rows of the records: of each sample what the check achieved, `skipped` where it did not try."""
    fixed = {
        "model": case.subject.label,
        "model_hash": case.subject.hash,
        "attack": attack_name(check, norm),
        "params": canonical_json({"check": check}),
        "norm": norm,
        "eps": eps,
        "target": None,
        "forwards": None,
        "backwards": None,
        "nfe": None,
        "converged": None,
        "kkt": None,
        "message": "",
        **case.common,
    }
    shard, out = case.shard, []
    wrong = (shard.clean_pred != shard.y).tolist()
    for row, (sample, label, pred, margin) in enumerate(
        zip(shard.index.tolist(), shard.y.tolist(), shard.clean_pred.tolist(), shard.clean_margin.tolist(), strict=True)
    ):
        broken = bool(points.distance[row].isfinite())
        status = Status.SUCCESS if broken else Status.FAILED if points.tried[row] else Status.SKIPPED
        skipped = status is Status.SKIPPED
        found = {
            "status": status.value,
            "distance": float(points.distance[row]),
            "adv_pred": None if skipped else int(points.pred[row]),
            "adv_margin": None if skipped else float(points.margin[row]),
        }
        if wrong[row]:
            found = {"status": Status.MISCLASSIFIED.value, "distance": 0.0, "adv_pred": pred, "adv_margin": margin}
        answers = {"sample": sample, "label": label, "clean_pred": pred, "clean_margin": margin}
        out.append({**fixed, **answers, **found})
    return out
