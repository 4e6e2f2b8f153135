"""The adjoint as a bound: margins lose what their gradient at the sample says, and a remainder of second order."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.certificates.bound import Bound, ClassRadii
from robustode.certificates.bracket import largest_balls
from robustode.certificates.first_order import first_order
from robustode.certificates.network import network, refuses_discrete, state_shape
from robustode.certificates.problem import Problem
from robustode.certificates.remainder import remainder
from robustode.certificates.slopes import has_curvature
from robustode.certificates.tube import EXPANSION, by_chunks
from robustode.sensitivity.norms import NORMS
from robustode.solvers.operators import Dense

ROUNDS = 10  # balls tried
COST = 20  # of one, in passes
MEMORY = 2 * 2**30  # bytes for one sample


def _refuses(problem: Problem) -> str | None:
    if (reason := refuses_discrete(problem)) is not None:
        return reason
    if not has_curvature(name := network(problem).config["activation"]):
        return f"activation '{name}': its slope jumps, and the remainder needs a bounded curvature"
    if (need := _bytes(problem)) > MEMORY:
        return f"needs {need / 2**30:.1f} GiB for one sample, more than the {MEMORY / 2**30:g} GiB allowed"
    return None


def _bytes(problem: Problem) -> int:
    """Return what one sample needs: a few tangents of every component, and all cotangents."""
    model = network(problem)
    features, stages = torch.Size(state_shape(problem)).numel(), model.flow.tableau.stages
    tangents = (stages + 6) * problem.x[0].numel()
    return (
        8
        * features
        * (tangents + model.steps * stages * (model.classes + 8) + (6 * features if _dense(problem) else 0))
    )


def _dense(problem: Problem) -> bool:
    return isinstance(network(problem).operator, Dense)


def _radii(problem: Problem) -> ClassRadii:
    return by_chunks(problem, _bytes(problem), _chunk)


def _chunk(problem: Problem) -> ClassRadii:
    flow = network(problem).flow
    first = first_order(problem, whole=_dense(problem))

    def lost(eps: Tensor) -> Tensor:
        return remainder(problem, flow, first, eps)

    radius = largest_balls(lost, first.margins, first.linear, ROUNDS)
    size = problem.x[0].numel()
    passes = size + network(problem).classes + COST * ROUNDS + (EXPANSION * size if _dense(problem) else 0)
    return ClassRadii(radius=radius, passes=torch.full_like(radius[:, 0], passes))


ADJOINT = Bound(
    name="adjoint",
    title="adjoint and remainder",
    certifies="discrete",
    norms=NORMS,
    source="Cao and Petzold, SIAM J. Sci. Comput. 26 (2004), the remainder made rigorous",
    refuses=_refuses,
    radii=_radii,
)
