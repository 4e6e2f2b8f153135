"""The affine form in depth as a bound: radii of a dense sNODE, tight to second order."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.certificates.affine_form import affine_form
from robustode.certificates.bound import Bound, ClassRadii
from robustode.certificates.expand import blocks, expansion_bytes
from robustode.certificates.network import network, refuses_discrete
from robustode.certificates.problem import Problem
from robustode.certificates.slopes import has_curvature
from robustode.certificates.trials import search
from robustode.sensitivity.norms import NORMS
from robustode.solvers.operators import Dense

MEMORY = 2 * 2**30  # bytes that the expansion of one sample may take
CHUNK_BYTES, CHUNK = 2**29, 64  # memory of the samples that go together, and their number
FITS = 4  # balls that forms are fitted for, besides the tangents
FIRST, NEXT = 6, 2  # radii tried with the tangents, and with each fit
GROWTH = 1.8  # of the ball to fit for, where none is known that is too large
SPARE = 3e-7  # relative, by which the first radius is below that of the linear part
FAR = 1e6  # largest radius tried


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
    size = max(1, min(CHUNK, CHUNK_BYTES // expansion_bytes(flow)))
    parts = []
    for first in range(0, max(len(problem.x), 1), size):
        part = problem.part(slice(first, first + size))
        parts.append(_found(part))
    radius = torch.cat(parts)
    # For each fit a pass for each component of the Jacobian, and as many for rows carried to half the blocks.
    passes = (1 + FITS) * flow.weight.shape[1] * (1 + blocks(flow) / 2)
    return ClassRadii(radius=radius, passes=torch.full_like(radius[:, 0], passes))


def _found(problem: Problem) -> Tensor:
    """Return the best radii of forms fitted for one ball after the other, (batch, classes).

    The first are the tangents at the samples. A ball for which its own forms certify more than is known raises what is
    known; one for which they do not is too large to fit for.
    """
    zero = torch.zeros_like(problem.margins[:, 0])
    form = affine_form(problem, zero)
    ratio = torch.where(form.linear > 0, form.margins / form.linear, torch.inf).amin(1).clamp(min=0, max=FAR)
    best = search(form.loss, form.margins, zero, ratio * (1 - SPARE), FIRST)
    most = torch.full_like(zero, torch.inf)
    for _ in range(FITS):
        known = best.amin(1)
        if bool((known >= ratio * (1 - 2 * SPARE)).all()):
            break  # the field is linear
        eps = torch.where(most.isinf(), known * GROWTH, (known * most).sqrt())
        form = affine_form(problem, eps)
        found = search(form.loss, form.margins, known, eps, NEXT)
        most = torch.where(found.amin(1) < eps, torch.minimum(most, eps), most)
        most = torch.where(most > found.amin(1), most, torch.inf)
        best = torch.maximum(best, found)
    return best


AFFINE = Bound(
    name="affine",
    title="affine form in depth with second order and remainder",
    certifies="discrete",
    norms=NORMS,
    source="Makino and Berz, Int. J. Pure Appl. Math. 4 (2003), Taylor models; Singla and Feizi, arXiv 2006.00731",
    refuses=_refuses,
    radii=_radii,
)
