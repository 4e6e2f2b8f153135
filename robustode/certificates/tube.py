"""Bounds by Lipschitz constants of the discrete map: for all slopes, or for those within the tube of a ball."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from robustode.certificates.bound import Bound, ClassRadii
from robustode.certificates.cache import remembered
from robustode.certificates.gauge import Gauge, gauges
from robustode.certificates.linear import linear
from robustode.certificates.network import network, refuses_discrete, state_shape
from robustode.certificates.problem import Problem
from robustode.certificates.search import largest_radii
from robustode.certificates.steps import step_constants
from robustode.certificates.sweep import Drift, Path, component_drift, nominal, norm_drift
from robustode.sensitivity.norms import NORMS
from robustode.solvers.flow import Flow

ROUNDS = 4  # balls tried besides that of radius 0, with eigenproblems
CHEAP_ROUNDS = 12  # without
CHUNK_BYTES = 2**28
EIGEN_FEATURES = 256  # more components: no eigenproblems per sample
EXPANSION = 3  # cost of a step with one, in passes of a step and a component

DriftAt = Callable[..., Drift]  # of eps=, (batch,)


def lipschitz_radii(problem: Problem) -> ClassRadii:
    """Return the radii margin_k / (‖e_y − e_k‖* Π L_n), L_n the Lipschitz constants of the steps for all slopes."""
    return _over_chunks(problem, local=False)


def tube_radii(problem: Problem) -> ClassRadii:
    """Return the largest ε found with margin_k > ‖e_y − e_k‖* ρ_N(ε), ρ the radius of the tube of the ball.

    ρ_N(ε) / ε does not fall with ε, so that a tube for ε gives the radius min(ε, margin_k ε / (‖e_y − e_k‖* ρ_N(ε)));
    the best ε for the nearest class is searched for.
    """
    return _over_chunks(problem, local=True)


def constants(problem: Problem, flow: Flow, norm: str) -> Tensor:
    """Return `step_constants` of a problem's model, remembered."""
    return remembered(problem, f"steps-{norm}", partial(step_constants, flow, norm, state_shape(problem)))


def _over_chunks(problem: Problem, local: bool) -> ClassRadii:
    flow, state = network(problem).flow, state_shape(problem)
    features = torch.Size(state).numel()
    eigen = 8 * features if flow.operator.dims == 1 and features <= EIGEN_FEATURES else 16
    row = 8 * features * (4 * flow.steps * flow.tableau.stages + eigen)
    return by_chunks(problem, row, lambda part: _radii(part, flow, local))


def by_chunks(problem: Problem, row: int, radii: Callable[[Problem], ClassRadii]) -> ClassRadii:
    """Return the radii of parts of the samples, together; `row` is what one sample needs, in bytes."""
    size = max(1, CHUNK_BYTES // row)
    parts = [radii(problem.part(slice(k, k + size))) for k in range(0, max(len(problem.x), 1), size)]
    radius, passes = (torch.cat(found) for found in zip(*((p.radius, p.passes) for p in parts), strict=True))
    return ClassRadii(radius=radius, passes=passes)


def _radii(problem: Problem, flow: Flow, local: bool) -> ClassRadii:
    path, model = nominal(problem, flow), network(problem)
    logits = model.read(path.final)[:, : model.classes]
    margins = (logits.gather(1, problem.y[:, None]) - logits).scatter(1, problem.y[:, None], torch.inf)
    radius, passes = torch.zeros_like(margins), torch.full_like(margins[:, 0], 5.0)
    for gauge in gauges(problem):
        for at, rounds, cost in _tubes(problem, flow, path, gauge, local):
            found, tried = _search(at, margins, rounds)
            radius, passes = torch.maximum(radius, found), passes + tried * cost
    return ClassRadii(radius=radius, passes=passes)


def _tubes(problem: Problem, flow: Flow, path: Path, gauge: Gauge, local: bool) -> Iterator[tuple[DriftAt, int, float]]:
    """Yield the tubes of one norm: the drift for given radii, balls to try (0: one settles all), passes of each."""
    if gauge.norm == "linf":
        yield partial(component_drift, problem, flow, path, local=False), 0, 8.0
        if local:
            yield partial(component_drift, problem, flow, path, local=True), CHEAP_ROUNDS, 16.0
        return
    carry = partial(norm_drift, problem, flow, path, gauge, constants=constants(problem, flow, gauge.norm))
    yield carry, 0, 5.0
    if not local:
        return
    features = path.final[0].numel()
    if gauge.norm == "l2" and flow.operator.dims == 1 and features <= EIGEN_FEATURES:
        yield partial(carry, local=True, scales=_scales(flow)), ROUNDS, EXPANSION * features
    else:
        yield partial(carry, local=True), CHEAP_ROUNDS, 9.0


def _search(at: DriftAt, margins: Tensor, rounds: int) -> tuple[Tensor, int]:
    """Return the radii found, (batch, classes), and how many balls were tried for each sample.

    Without rounds the slopes do not depend on the ball: one that holds all radii settles them.
    """

    def certified(eps: Tensor) -> Tensor:
        return at(eps=eps).certified(margins)

    batch = torch.zeros_like(margins[:, 0])
    if rounds:
        return largest_radii(certified, batch, rounds), rounds + 1
    found = certified(batch)
    eps = found.where(found.isfinite(), 0.0).amax(1)
    return torch.minimum(eps[:, None], certified(eps)), 2


def _scales(flow: Flow) -> list[list[Tensor]]:
    """Return the norms of the rows of every step's K: with slopes of one sample they do as well as optimised ones."""
    stages = range(flow.tableau.stages)
    return [
        [torch.linalg.vector_norm(linear(flow, n, i).weight, dim=-1).clamp(min=1e-300) for i in stages]
        for n in range(flow.steps)
    ]


BOUNDS = (
    Bound(
        name="lipschitz",
        title="Lipschitz constants of the steps",
        certifies="discrete",
        norms=NORMS,
        source="Söderlind, BIT 46 (2006), for I + hJ in place of J",
        refuses=refuses_discrete,
        radii=lipschitz_radii,
        covered_by=("tube",),
    ),
    Bound(
        name="tube",
        title="Lipschitz constants within the tube of the ball",
        certifies="discrete",
        norms=NORMS,
        source="Söderlind, BIT 46 (2006), slopes and radius carried together",
        refuses=refuses_discrete,
        radii=tube_radii,
    ),
)
