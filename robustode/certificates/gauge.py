"""The norms in which a tube is carried: how wide it starts for a ball of inputs, and what it does to the margins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.network import network
from robustode.certificates.problem import Problem
from robustode.sensitivity.norms import dual


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """A norm of states in which a tube is carried.

    Attributes:
        norm: "l1", "l2" or "linf".
        start: ‖x(0) − x̂(0)‖ in it for an input at distance 1 in the problem's norm, at most.
    """

    norm: str
    start: float


def gauges(problem: Problem) -> tuple[Gauge, ...]:
    """Return the norms worth trying for a problem: its own, and L2, in which states part least.

    ‖δ‖₂ ≤ ‖δ‖₁ and ‖δ‖₂ ≤ √d ‖δ‖_∞. The lift of an input to a state keeps every norm.
    """
    scale = abs(network(problem).encoding_scale) * (1 + 2.0**-50)
    own = Gauge(norm=problem.norm, start=scale)
    if problem.norm == "l2":
        return (own,)
    wider = problem.x[0].numel() ** 0.5 * (1 + 2.0**-50) if problem.norm == "linf" else 1.0
    return own, Gauge(norm="l2", start=scale * wider)


def margin_widths(problem: Problem, norm: str) -> Tensor:
    """Return ‖∂(z_y − z_k)/∂x(T)‖ in the dual norm, (batch, classes), 0 in column y: a margin's change for a unit.

    Shapes as the problem's margins; it is the norm of e_y − e_k, pulled back through the readout.
    """
    model = network(problem)
    classes, final = model.classes, model.config.get("channels", problem.x[0].numel())
    same = torch.eye(classes, final, dtype=torch.float64, device=problem.x.device)
    differences = same[problem.y][:, None] - same  # (batch, classes, final)
    pulled = model.read_transposed(differences.flatten(0, 1)).flatten(1)
    return dual(pulled, norm).reshape(len(problem.y), classes) * (1 + 2.0**-40)
