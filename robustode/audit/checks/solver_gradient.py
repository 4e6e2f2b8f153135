"""solver-gradient: the gradient that attacks get through the deployed solve is that of the flow."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robustode.attacks.cards import resolve
from robustode.attacks.constraint import constraint
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.audit.assault import Trial, assault
from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.finding import Verdict
from robustode.audit.variants import frozen, solves
from robustode.solvers.observe import DeployedForward, Replay, Replayed

COSINE = 0.9
SAMPLES = 32
FINE = " with the fine gradient"
FEW = 8  # samples on which the four ways are compared
STEPS, STEP = 40, 2.5


def run(case: Case) -> Found:
    """Compare the margin's gradient through the deployed solve with that of a frozen fine grid; attack with the latter.

    Fails if the median cosine is below 0.9, or if attacks with the deployed forward and the fine backward break more
    than s survivors that the same attacks, from the same draws, with the deployed backward leave standing. PGD comes
    first: a continuous adjoint has an absolute tolerance, in which the small gradients of a mean cross-entropy drown
    while those of a margin, which the sensitivity attack takes, do not.
    """
    seen = solves(case.model, case.shard.x[:FEW])
    if not any(one.adaptive for one in seen):
        kind = "the steps are fixed, so that the model is its own map" if seen else "no ODE solve is seen"
        return not_applicable(kind)
    fine = Replayed(case.model, frozen(seen))
    rows = case.correct[:SAMPLES].to(case.shard.x.device)
    x, y = case.shard.x[rows], case.shard.y[rows]
    cosine = float(_cosines(_gradient(case.model, x, y), _gradient(fine, x, y)).median()) if len(rows) else 1.0
    usual = _cross_entropy_cosine(case.model, fine, x, y)
    honest = DeployedForward(case.model, fine)

    def trials(norm: str, eps: float) -> list[Trial]:
        builds: dict[str, Any] = {}
        pgd = {"linf": "torchattacks:PGD", "l2": "torchattacks:PGDL2"}.get(norm)
        if pgd:
            card = resolve(pgd, norms=[norm], params={"steps": STEPS, "alpha": STEP * eps / STEPS})[0]
            builds[f"PGD-{STEPS}"] = partial(card.build, eps)
        builds["sensitivity"] = partial(SensitivityAttack, norm=norm, eps=eps)
        sides = {"": None, FINE: honest}  # first with the deployed gradient: what that breaks does not count here
        return [
            Trial(name=name + side, build=build, model=model, draws=name)
            for name, build in builds.items()
            for side, model in sides.items()
        ]

    broken = assault(case, CHECK.id, trials)
    counts = [sum(v for k, v in cell["by"].items() if k.endswith(FINE)) for cell in broken.details.get("radii", [])]
    count = float(max(counts, default=0))
    by_cosine = above(-cosine, fail=-COSINE)
    attacked = above(count, fail=case.slack, warn=case.slack / 2)
    masked = by_cosine is Verdict.FAIL or attacked is Verdict.PASS
    text = f"median cosine of the deployed gradient with that of a fine grid {cosine:.3f}"
    text += f", of the mean cross-entropy {usual:.3f}"
    return Found(
        status=max(by_cosine, attacked, key=("pass", "warn", "fail").index),
        value=cosine if masked else count,
        threshold=COSINE if masked else case.slack,
        text=f"{text}; {count:.0f} survivors fall to attacks with the fine gradient only",
        samples=broken.samples,
        details={
            **broken.details,
            "cosine": cosine,
            "cosine_cross_entropy": usual,
            "four_ways": _four_ways(case.model, x[:FEW], y[:FEW]),
        },
    )


def _gradient(model: Any, x: Tensor, y: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        logits = model(leaf)
        _, cotangent = constraint(logits.detach(), y, targeted=False)
        if not logits.requires_grad:
            return torch.zeros_like(x)
        found = torch.autograd.grad(logits, leaf, cotangent, allow_unused=True)[0]
    return torch.zeros_like(x) if found is None else found.detach()


def _cross_entropy_cosine(model: Any, fine: Any, x: Tensor, y: Tensor) -> float:
    """Median cosine of the gradients of the mean cross-entropy, as PGD takes them."""

    def gradient(of: Any) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            loss = cross_entropy(of(leaf), y)
            found = torch.autograd.grad(loss, leaf, allow_unused=True)[0] if loss.requires_grad else None
        return torch.zeros_like(x) if found is None else found.detach()

    return float(_cosines(gradient(model), gradient(fine)).median()) if len(x) else 1.0


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """(batch,) cosines; 1 where both are zero."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    sizes = a.norm(dim=1) * b.norm(dim=1)
    cosine = (a * b).sum(1) / sizes.clamp_min(1e-300)
    return torch.where((a == b).all(1), 1.0, torch.where(sizes > 0, cosine, 0.0))


def _four_ways(model: Any, x: Tensor, y: Tensor) -> dict[str, float | None]:
    """Median over samples of the derivative of the margin along its own normalised gradient, found in four ways, as a
    share of the first: the discrete adjoint, the continuous adjoint, the tangent, central differences of the solve."""
    if len(x) == 0:
        return {}
    gradient = _gradient(Replayed(model, Replay(gradient="discrete")), x, y)
    size = gradient.flatten(1).norm(dim=1)
    way = gradient / size.clamp_min(1e-30).reshape(-1, *[1] * (x.dim() - 1))

    def share(along: Tensor) -> float:
        return float((along / size.clamp_min(1e-30)).median())

    out: dict[str, float | None] = {"discrete adjoint": 1.0}
    for name, derivative in {"continuous adjoint": _along, "tangent": _tangent}.items():
        try:
            out[name] = share(derivative(model, x, y, way))
        except Exception:  # a way that this model does not allow
            out[name] = None
    lo, hi = model.bounds
    step = 1e-2 * (hi - lo)
    with torch.no_grad():
        ahead, behind = (constraint(model(x + sign * step * way), y, targeted=False)[0] for sign in (1, -1))
    out["central differences"] = share((ahead - behind) / (2 * step))
    return out


def _along(model: Any, x: Tensor, y: Tensor, way: Tensor) -> Tensor:
    gradient = _gradient(Replayed(model, Replay(gradient="continuous")), x, y)
    return (gradient * way).flatten(1).sum(1)


def _tangent(model: Any, x: Tensor, y: Tensor, way: Tensor) -> Tensor:
    """The forward derivative, by the derivative of the reverse pass with respect to its cotangent."""
    discrete = Replayed(model, Replay(gradient="discrete"))
    with torch.enable_grad():
        both: Any = torch.autograd.functional.jvp(discrete, x, way)
    logits, tangent = both
    _, cotangent = constraint(logits, y, targeted=False)
    return (cotangent * tangent).sum(1).detach()


CHECK = Check(
    id="solver-gradient",
    title="the gradient through the deployed solve is that of the flow",
    cheap=False,
    source="Huang et al. 2020, arXiv 2009.13145; Onken and Ruthotto 2020, arXiv 2005.13420",
    advice="Attack with the gradient of a fine frozen grid and score on the deployed model; tighten the tolerances.",
    run=run,
)
