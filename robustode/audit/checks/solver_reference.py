"""solver-reference: the deployed adaptive solver answers as the ODE does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustode.attacks.cards import resolve
from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.variants import reference, solves
from robustode.solvers.observe import Observed, Replay, Replayed

CLEAN, ATTACKED = 0.01, 0.03  # shares of samples
MOST = 200
STEPS, STEP = 20, 2.5
SWEEP = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
FEW = 16


def run(case: Case) -> Found:
    """Compare the deployed labels with those of a reference solve at 1e-9, at clean inputs and at the ends of PGD-20.

    The points of minimal-norm attacks are not used: they lie on the boundary, where any change of solver moves them.
    """
    x = case.shard.x[:MOST]
    seen = solves(case.model, x[:FEW])
    if not any(one.adaptive for one in seen):
        kind = "the steps are fixed, so that the model is its own map" if seen else "no ODE solve is seen"
        return not_applicable(kind)
    exact = reference(case.model, x[:FEW])
    if exact is None:
        return not_applicable("the model cannot be solved at tight tolerances")
    clean = float((_labels(exact, x) != case.shard.clean_pred[:MOST].to(x.device)).double().mean())
    gaps = [_attacked(case, exact, norm, eps) for norm in case.budgets if norm != "l1" for eps in case.radii(norm)]
    worst: dict[str, Any] = max(gaps, key=lambda one: abs(one["gap"]), default={"gap": 0.0})
    gap = abs(worst["gap"])
    clean_leads = clean / CLEAN > gap / ATTACKED
    text = f"{_words(seen)}: clean labels of the ODE differ on {clean:.1%} of samples"
    if gaps:
        text += (
            f"; of {worst['n']} correctly classified samples PGD-{STEPS} leaves {worst['deployed']:.1%} under the "
            f"deployed solver, {worst['reference']:.1%} under the reference ({worst['norm']} ε = {worst['eps']:g})"
        )
    status = max(above(clean, fail=CLEAN), above(gap, fail=ATTACKED), key=("pass", "warn", "fail").index)
    return Found(
        status=status,
        value=clean if clean_leads else gap,
        threshold=CLEAN if clean_leads else ATTACKED,
        text=text,
        samples=tuple(sorted(set(worst.get("samples", ())))),
        details={"attacked": gaps, **_details(case, seen, exact, x[:FEW])},
    )


def _attacked(case: Case, exact: Replayed, norm: str, eps: float) -> dict[str, Any]:
    """Robust accuracy at the ends of PGD under the deployed solver and under the reference, on the same points."""
    rows = case.correct[:MOST]
    here = rows.to(case.shard.x.device)
    x, y = case.shard.x[here], case.shard.y[here]
    name = {"linf": "torchattacks:PGD", "l2": "torchattacks:PGDL2"}[norm]
    card = resolve(name, norms=[norm], params={"steps": STEPS, "alpha": STEP * eps / STEPS})[0]
    result = card.build(eps)(case.subject.counted, x, y, generator=case.generator(CHECK.id))
    points = result.x_adv if result.returned is None else result.returned
    deployed = ~case.take(CHECK.id, norm, eps, rows, points).success.cpu()
    fine = (_labels(exact, points.to(x)) == y).cpu()
    return {
        "norm": norm,
        "eps": eps,
        "n": len(rows),
        "deployed": float(deployed.double().mean()),
        "reference": float(fine.double().mean()),
        "gap": float(deployed.double().mean() - fine.double().mean()),
        "samples": list(case.samples(rows[deployed != fine])),
    }


@torch.no_grad()
def _labels(model: torch.nn.Module, x: Tensor) -> Tensor:
    return torch.cat([model(part).argmax(1) for part in x.split(64)])


def _words(seen: list[Observed]) -> str:
    one = next(one for one in seen if one.adaptive)
    return f"{one.method} of {one.backend}, rtol {one.rtol:.0e}, atol {one.atol:.0e}"


@torch.no_grad()
def _details(case: Case, seen: list[Observed], exact: Replayed, x: Tensor) -> dict[str, Any]:
    """Tolerance sweep, batch coupling, steps and stiffness; evaluations at clean and attacked inputs."""
    model, want = case.model, exact(x)
    sweep = []
    for tolerance in SWEEP:
        logits = Replayed(model, Replay(tolerance=tolerance))(x)
        agree = float((logits.argmax(1) == want.argmax(1)).double().mean())
        sweep.append({"tolerance": tolerance, "labels": agree, "logits": float((logits - want).abs().max())})
    alone = torch.cat([model(row) for row in x.split(1)])
    stiff = [value for one in seen if (value := one.stiffness()) is not None]
    radii = [(norm, eps) for norm in case.budgets for eps in case.budgets[norm]]
    broken = [point for norm, eps in radii for point in case.evidence.points(CHECK.id, norm, eps)][:FEW]
    adversarial = solves(model, torch.stack(broken).to(x)) if broken else []
    return {
        "sweep": sweep,
        "deployed_logits": float((model(x) - want).abs().max()),
        "batch_coupling": float((model(x) - alone).abs().max()),
        "adjoint": any(one.adjoint for one in seen),
        "evaluations": sum(one.evaluations for one in seen),
        "evaluations_attacked": sum(one.evaluations for one in adversarial) if broken else None,
        "accepted": sum(one.accepted for one in seen),
        "rejected": sum(one.rejected for one in seen),
        "stiffness": max(stiff) if stiff else None,
    }


CHECK = Check(
    id="solver-reference",
    title="the deployed solver answers as the ODE does",
    cheap=False,
    source="the reference is the same solver at tolerance 1e-9; Huang et al. 2020, arXiv 2009.13145",
    advice="Tighten the tolerances until labels and robust accuracy no longer change; the number is the solver's.",
    run=run,
)
