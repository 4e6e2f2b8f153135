"""plateau: the loss that PGD climbs has come to rest before its last steps."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.audit.case import AT_ONCE, Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.pgd import PGD

STEPS = 100
LAST = STEPS // 10
MOVES = 0.05  # of the whole rise


def run(case: Case) -> Found:
    """Return by how much the mean scaled loss of the survivors still rises in the last tenth of PGD.

    The loss is the margin: cross-entropy grows exponentially on the last steps of a correctly classified sample, so
    that it warns on honest networks too.
    """
    generator = case.generator("plateau")
    cells = []
    for norm in case.budgets:
        for eps in case.radii(norm):
            rows = case.survivors(norm, eps)
            attack, losses = PGD(norm=norm, eps=eps, steps=STEPS, loss="margin"), []
            for part in rows.split(AT_ONCE):
                here = part.to(case.shard.x.device)
                x, y = case.shard.x[here], case.shard.y[here]
                points, path = attack.climb(case.subject.counted, x, y, generator=generator)
                case.take("plateau", norm, eps, part, points)
                losses.append(path)
            moved = last_rise(torch.cat(losses, 1), LAST)
            cells.append({"norm": norm, "eps": eps, "survivors": len(rows), "moved": float(moved.mean())})
    if not cells:
        return not_applicable("no sample is left standing at any radius")
    worst = max(cells, key=lambda cell: cell["moved"])
    text = (
        f"{worst['moved']:.1%} of the rise of PGD's loss falls into the last {LAST} of {STEPS} steps "
        f"(mean of {worst['survivors']} survivors at {worst['norm']} {worst['eps']:g})"
    )
    status = above(worst["moved"], fail=float("inf"), warn=MOVES)
    return Found(status=status, value=worst["moved"], threshold=MOVES, text=text, details={"radii": cells})


def last_rise(losses: Tensor, last: int) -> Tensor:
    """Return (batch,) which share of the rise of the best loss so far falls into the last steps; 0 if it never rises.

    Args:
        losses: (steps + 1, batch), along the path of an attack.
        last: steps at the end, in [1, steps].
    """
    best = torch.where(losses.isfinite(), losses, -torch.inf).cummax(0).values
    whole, end = best[-1] - best[0], best[-1] - best[-1 - last]
    return torch.where(whole > 0, end / whole, 0.0).nan_to_num()


CHECK = Check(
    id="plateau",
    title="the loss that PGD climbs has come to rest",
    cheap=False,
    source="Carlini et al. 2019, arXiv 1902.06705, checklist",
    advice="Attacks have not converged here: give them more iterations, or step sizes that shrink.",
    run=run,
)
