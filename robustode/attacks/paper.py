"""The attack as published: steps of fixed length along the gradient of the nearest κ-margin."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.attacks.norms import per_sample
from robustode.attacks.search import Search
from robustode.sensitivity.linearise import linearise


def paper_search(search: Search, *, kappa: float, step: float, steps: int) -> Tensor:
    """Run the published attack: `steps` steps of L2 length `step`, each along −∇(z_c − κ z_k) for the class k nearest.

    The class is the one of smallest (z_c − κ z_k) / ‖P_c − κ P_k‖, c the label (its target k, if there is one); every
    point is clipped to the box, and the adversarial nearest to the clean input is kept. The slips of the authors'
    prototype are corrected: each Jacobian is taken at the point it belongs to, a targeted run starts from the clean
    input, and a failure is a status, not a number. A class that cannot be reached by its linear model, where the
    prototype steps at random, stops the sample.

    Returns:
        (samples,) +inf: the published attack has no stopping test, so nothing is known of optimality.

    Source: arXiv 2205.13933, adversarial attack.
    """
    lo, hi = search.model.bounds
    x = search.x0.clone()
    own = search.y[:, None]
    index = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        linear = linearise(search.model, x)
        logits = linear.logits
        classes = logits.shape[1]
        eye = torch.eye(classes, dtype=logits.dtype, device=logits.device)
        rows = linear.vjp(eye.expand(len(x), -1, -1)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        search.passes.add(search.sample, forwards=1, backwards=classes)
        direction = kappa * rows - rows[index, search.y][:, None]
        length = direction.flatten(2).norm(dim=2)
        reach = (logits.gather(1, own) - kappa * logits) / length
        reach = torch.where(torch.isfinite(reach), reach, torch.inf).scatter(1, own, torch.inf)
        chosen = reach.argmin(1) if search.target is None else search.target
        v = direction[index, chosen]
        size = length[index, chosen].clamp_min(torch.finfo(x.dtype).tiny)
        usable = torch.isfinite(reach[index, chosen])
        x = torch.where(per_sample(usable, x), (x + step * v / per_sample(size, x)).clamp(lo, hi), x)
        search.evaluate(index, x)
    return torch.full_like(search.best, torch.inf)
