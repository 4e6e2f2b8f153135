"""What is left of adversarials after their inputs were rounded, as in 8-bit images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from robustode.attacks.base import Status
from robustode.evaluation.judge import Judge
from robustode.evaluation.rows import Shard


def round_rows(
    judge: Judge, shard: Shard, columns: dict[str, Any], ways: Sequence[Tensor], *, norm: str, eps: float | None
) -> dict[str, Any]:
    """Return the rows of a shard with rounded inputs, judged again: prediction, box, ball, distance to the clean input.

    Of several ways to round, each row takes the one that leaves the nearest adversarial, and the first if none does. A
    success that is none any more becomes `failed`, at distance +inf, and keeps its rounded point. New columns:
    `survives` (1: still adversarial, 0: no more, −1: never was), `distance_found` (before rounding). `adv_pred` is the
    answer at the rounded input in every row but those of an attack that raised.

    Args:
        judge: of the model.
        shard: the clean samples.
        columns: `x`, `status`, `distance`, `adv_pred`, ... as the attack left them.
        ways: what `x` may become, (n, *input_shape) each; at least one.
        norm, eps: of the attack; None is no ball.
    """
    rounded, success, gap, pred = _best(judge, shard, ways, norm, eps)
    status, found = columns["status"], [word == Status.SUCCESS.value for word in columns["status"]]
    left = [was and still for was, still in zip(found, success.tolist(), strict=True)]
    lost = [was and not still for was, still in zip(found, left, strict=True)]
    before = torch.tensor(columns["distance"], dtype=torch.float64)
    distance = before.clone()
    distance[torch.tensor(left)] = gap[torch.tensor(left)]
    distance[torch.tensor(lost)] = math.inf
    raised = torch.tensor([word == Status.ERROR.value for word in status])
    return {
        **columns,
        "x": rounded,
        "status": [Status.FAILED.value if gone else word for word, gone in zip(status, lost, strict=True)],
        "distance": distance,
        "adv_pred": torch.where(raised, torch.tensor(columns["adv_pred"]), pred),
        "survives": torch.tensor([int(still) if was else -1 for was, still in zip(found, left, strict=True)]),
        "distance_found": before,
    }


@torch.no_grad()
def _best(
    judge: Judge, shard: Shard, ways: Sequence[Tensor], norm: str, eps: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return for each row the way that leaves the nearest adversarial: point, whether it is one, distance, answer."""
    verdicts = [judge.judge(shard.x, way.to(shard.x), shard.y, norm=norm, eps=eps) for way in ways]
    success, gap, pred = (
        torch.stack([getattr(verdict, name).cpu() for verdict in verdicts]) for name in ("success", "distance", "pred")
    )
    chosen = torch.where(success, gap.double(), math.inf).argmin(dim=0)  # the first where none is
    rows = torch.arange(len(chosen))
    return torch.stack(list(ways))[chosen, rows], success[chosen, rows], gap[chosen, rows].double(), pred[chosen, rows]
