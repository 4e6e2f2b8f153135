"""solver-reference: the deployed adaptive solver answers as the ODE does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustode.attacks.cards import resolve
from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.finding import Verdict
from robustode.audit.variants import reference, solver_variants, solves
from robustode.solvers.observe import Observed, Replay, Replayed

CLEAN, ATTACKED = 0.01, 0.03  # shares of samples
MOST = 200
STEPS, STEP = 20, 2.5
SWEEP = tuple(10.0**-k for k in range(1, 10))
FEW = 16


def run(case: Case) -> Found:
    """Compare the deployed labels with those of a reference solve at 1e-9, at clean inputs and at the ends of PGD-20.

    The points of minimal-norm attacks are not used: they lie on the boundary, where any change of solver moves them.
    """
    x = case.shard.x[:MOST]
    seen = solves(case.model, x[:FEW])
    if not any(one.adaptive for one in seen):
        return _own_map(case, x)
    exact = reference(case.model, x[:FEW])
    if exact is None:
        return Found(status=Verdict.WARN, text=f"{_words(seen)}: the model cannot be solved at tight tolerances")
    clean = float((_labels(exact, x) != case.shard.clean_pred[:MOST].to(x.device)).double().mean())
    gaps = [_attacked(case, exact, norm, eps) for norm in case.budgets if norm != "l1" for eps in case.radii(norm)]
    worst: dict[str, Any] = max(gaps, key=lambda one: abs(one["gap"]), default={"gap": 0.0})
    gap = abs(worst["gap"])
    allowed = max(ATTACKED, case.slack / worst["n"]) if gaps else ATTACKED  # of few samples one is more than 3 points
    clean_leads = clean / CLEAN > gap / allowed
    text = f"{_words(seen)}: clean labels of the ODE differ on {clean:.1%} of samples"
    if gaps:
        text += (
            f"; of {worst['n']} correctly classified samples PGD-{STEPS} leaves {worst['deployed']:.1%} under the "
            f"deployed solver, {worst['reference']:.1%} under the reference ({worst['norm']} ε = {worst['eps']:g})"
        )
    status = max(above(clean, fail=CLEAN), above(gap, fail=allowed), key=("pass", "warn", "fail").index)
    return Found(
        status=status,
        value=clean if clean_leads else gap,
        threshold=CLEAN if clean_leads else allowed,
        text=text,
        samples=tuple(sorted(set(worst.get("samples", ())))),
        details={"attacked": gaps, **_details(case, seen, exact, x[:FEW])},
    )


def _own_map(case: Case, x: Tensor) -> Found:
    """A fixed-step model is its own map: not applicable, with what other steps would answer."""
    labels, others = _labels(case.model, x), []
    for name, other in solver_variants(case.model):
        agree = float((_labels(other, x) == labels).double().mean())
        others.append({"name": name, "labels": agree})
    if not others:
        return not_applicable("no ODE solve is seen")
    said = ", ".join(f"{one['name']} keep {one['labels']:.1%} of the labels" for one in others)
    text = f"the steps are fixed, so that the model is its own map; {said}"
    return Found(status=Verdict.NOT_APPLICABLE, text=text, details={"rediscretised": others})


def _attacked(case: Case, exact: Replayed, norm: str, eps: float) -> dict[str, Any]:
    """Robust accuracy at the ends of PGD under the deployed solver and under the reference, on the same points."""
    rows = case.correct[:MOST]
    here = rows.to(case.shard.x.device)
    x, y = case.shard.x[here], case.shard.y[here]
    params = {"steps": STEPS, "rel_stepsize": STEP / STEPS}
    (card,) = resolve({"linf": "foolbox:LinfPGD", "l2": "foolbox:L2PGD"}[norm], norms=[norm], params=params)
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
def _labels(model: Any, x: Tensor) -> Tensor:
    return torch.cat([model(part).argmax(1) for part in x.split(64)])


def _words(seen: list[Observed]) -> str:
    one = next(one for one in seen if one.adaptive)
    return f"{one.method} of {one.backend}, rtol {one.rtol:.0e}, atol {one.atol:.0e}"


@torch.no_grad()
def _details(case: Case, seen: list[Observed], exact: Replayed, x: Tensor) -> dict[str, Any]:
    """Tolerance sweep, batch coupling, steps and stiffness; evaluations at clean and attacked inputs."""
    model, want = case.model, exact(x)
    sweep = []
    for tolerance in (one for one in SWEEP if one >= 0.999 * (exact.how.tolerance or 0)):
        logits = Replayed(model, Replay(tolerance=tolerance), double=exact.double_precision)(x)
        agree = float((logits.argmax(1) == want.argmax(1)).double().mean())
        sweep.append({"tolerance": tolerance, "labels": agree, "logits": float((logits - want).abs().max())})
    alone = torch.cat([model(row) for row in x.split(1)])
    stiff = [value for one in seen if (value := one.stiffness()) is not None]
    radii = [(norm, eps) for norm in case.budgets for eps in case.budgets[norm]]
    broken = {cell: case.evidence.points(CHECK.id, *cell) for cell in radii}
    cell = max(radii, key=lambda one: len(broken[one]), default=None)
    before, after = (0.0, 0.0) if cell is None or not broken[cell] else _evaluations(case, *cell, broken[cell][:FEW])
    return {
        "sweep": sweep,
        "deployed_logits": float((model(x) - want).abs().max()),
        "batch_coupling": float((model(x) - alone).abs().max()),
        "adjoint": any(one.adjoint for one in seen),
        "evaluations": sum(one.evaluations for one in seen),
        "evaluations_attacked": {"clean": before, "adversarial": after} if after else None,
        "accepted": sum(one.accepted for one in seen),
        "rejected": sum(one.rejected for one in seen),
        "stiffness": max(stiff) if stiff else None,
    }


def _evaluations(case: Case, norm: str, eps: float, points: list[Tensor]) -> tuple[float, float]:
    """Evaluations for a batch of clean inputs, and for the adversarial ones found from them."""
    rows = case.evidence.broken(CHECK.id, norm, eps)[: len(points)].to(case.shard.x.device)
    clean = case.shard.x[rows]
    both = (solves(case.model, part) for part in (clean, torch.stack(points).to(clean)))
    before, after = (sum(one.evaluations for one in seen) for seen in both)
    return before, after


CHECK = Check(
    id="solver-reference",
    title="the deployed solver answers as the ODE does",
    cheap=False,
    source="the reference is the same solver at tolerance 1e-9; Huang et al. 2020, arXiv 2009.13145",
    advice="Tighten the tolerances until labels and robust accuracy no longer change; the number is the solver's.",
    run=run,
)
