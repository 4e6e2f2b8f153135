"""The affine form in depth as a bound: radii of a dense sNODE, tight to second order."""

from __future__ import annotations

import torch

from robustode.certificates.affine_form import affine_form
from robustode.certificates.bound import Bound, ClassRadii
from robustode.certificates.expand import blocks, expansion_bytes
from robustode.certificates.network import network, refuses_discrete
from robustode.certificates.problem import Problem
from robustode.certificates.slopes import has_curvature
from robustode.certificates.trials import search
from robustode.sensitivity.norms import NORMS
from robustode.solvers.operators import Dense

MEMORY = 2 * 2**30  # bytes that the expansions of a chunk of samples may take
CHUNK = 8  # samples at most


def _refuses(problem: Problem) -> str | None:
    if (reason := refuses_discrete(problem)) is not None:
        return reason
    model = network(problem)
    if not isinstance(model.operator, Dense):
        return f"{model.arch}: expects a dense state, whose Jacobian it follows"
    if not has_curvature(name := model.config["activation"]):
        return f"activation '{name}': its slope jumps, and the second order needs a bounded curvature"
    if (need := expansion_bytes(model.flow)) > MEMORY:
        return f"needs {need / 2**30:.1f} GiB for one sample, more than the {MEMORY / 2**30:g} GiB allowed"
    return None


def _radii(problem: Problem) -> ClassRadii:
    flow = network(problem).flow
    size = max(1, min(CHUNK, MEMORY // expansion_bytes(flow)))
    parts = []
    for first in range(0, max(len(problem.x), 1), size):
        part = problem.part(slice(first, first + size))
        form = affine_form(part)
        parts.append(search(form.loss, part.margins, form.linear))
    radius = torch.cat(parts)
    # A pass for each component of the Jacobian, and as many for rows carried from every site to half the blocks.
    passes = flow.weight.shape[1] * (1 + blocks(flow) / 2)
    return ClassRadii(radius=radius, passes=torch.full_like(radius[:, 0], passes))


AFFINE = Bound(
    name="affine",
    title="affine form in depth with second order and remainder",
    certifies="discrete",
    norms=NORMS,
    source="Makino and Berz, Int. J. Pure Appl. Math. 4 (2003), Taylor models; Singla and Feizi, arXiv 2006.00731",
    refuses=_refuses,
    radii=_radii,
)
