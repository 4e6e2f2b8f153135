"""noise: random points of the ball find nothing that the attacks missed."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.probing import logits_of

DRAWS = 1000
AT_ONCE = 256


def run(case: Case) -> Found:
    """Count survivors that one of 1,000 uniform draws in the ball breaks; a sample ends at its first success."""
    worst: tuple[int, int, str, float, Tensor] | None = None
    for norm in case.budgets:
        for eps in case.radii(norm):
            rows = case.survivors(norm, eps)
            broken = _draw(case, norm, eps, rows)
            if worst is None or len(broken) > worst[0]:
                worst = (len(broken), len(rows), norm, eps, broken)
    if worst is None:
        return not_applicable("no sample survives")
    count, left, norm, eps, broken = worst
    text = f"{DRAWS:,} random points of the ball break {count} of {left} survivors at {norm} ε = {eps:g}"
    status = above(count, fail=case.slack, warn=case.slack / 2)
    return Found(
        status=status, value=float(count), threshold=case.slack, text=text, samples=case.samples(broken.sort().values)
    )


def _draw(case: Case, norm: str, eps: float, rows: Tensor) -> Tensor:
    """Return the rows that were broken."""
    draws, found = case.generator(f"noise-{norm}-{eps}"), []
    at_once = max(1, AT_ONCE // max(1, len(rows)))
    for start in range(0, DRAWS, at_once):
        if len(rows) == 0:
            break
        each = min(at_once, DRAWS - start)
        x = case.shard.x[rows.to(case.shard.x.device)]
        points = x.repeat_interleave(each, 0)
        points = (points + uniform_in_ball(points, norm, eps, draws)).clamp(*case.model.bounds)
        y = case.shard.y[rows.to(x.device)]
        wrong = (logits_of(case.model, points).argmax(1).view(-1, each) != y[:, None]).cpu()
        hit = wrong.any(1)
        if bool(hit.any()):
            first = points.view(len(rows), each, *x.shape[1:])[
                hit.to(x.device), wrong.int().argmax(1)[hit].to(x.device)
            ]
            sure = case.take("noise", norm, eps, rows[hit], first).success.cpu()
            found.append(rows[hit][sure])
            hit[hit.clone()] = sure
            rows = rows[~hit]
    if len(rows):
        case.take("noise", norm, eps, rows, case.shard.x[rows.to(case.shard.x.device)])
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


def uniform_in_ball(like: Tensor, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """Return points uniform in the ball ‖δ‖ ≤ ε, one for each row of `like`, (batch, ...).

    L2: ε u^{1/d} g / ‖g‖ with g Gaussian; L1: ε ±e / (e₁ + ... + e_{d+1}) with e exponential.
    """
    flat = like.flatten(1)
    if norm == "linf":
        delta = 2 * torch.rand(flat.shape, generator=generator, dtype=torch.float64) - 1
    elif norm == "l2":
        gaussian = torch.randn(flat.shape, generator=generator, dtype=torch.float64)
        radius = torch.rand(len(flat), 1, generator=generator, dtype=torch.float64) ** (1 / flat.shape[1])
        delta = radius * gaussian / torch.linalg.vector_norm(gaussian, dim=1, keepdim=True)
    else:
        size = torch.empty(len(flat), flat.shape[1] + 1, dtype=torch.float64).exponential_(generator=generator)
        sign = torch.randint(0, 2, flat.shape, generator=generator) * 2 - 1
        delta = sign * size[:, :-1] / size.sum(1, keepdim=True)
    return (eps * delta).reshape(like.shape).to(like)


CHECK = Check(
    id="noise",
    title="random noise is not better than the attacks",
    cheap=False,
    source="Carlini et al. 2019, arXiv 1902.06705, section 5",
    advice="The attacks are weaker than chance: mend them, and look for masked gradients.",
    run=run,
)
