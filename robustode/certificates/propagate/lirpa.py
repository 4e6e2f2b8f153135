"""The bound `auto-lirpa`: CROWN of the package auto_LiRPA, where it can be imported."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from robustode.certificates.bound import Bound, ClassRadii
from robustode.certificates.problem import Problem
from robustode.certificates.propagate.search import Search
from robustode.models.snode import SNODE

ORDERS = {"l1": 1, "l2": 2, "linf": math.inf}
SLACK = 2.0**10  # roundoffs of the deployed model, times the largest logit, that a margin must exceed
LINES = Search(tolerance=1e-3, evaluations=16, nearest=True)


class Unrolled(nn.Module):
    """An sNODE on a fixed grid as a chain of linear maps, activations and sums, without a fused sweep."""

    def __init__(self, model: SNODE) -> None:
        super().__init__()
        self.model, self.flow = model, model.flow

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (batch, classes)."""
        flow, state = self.flow, self.model.encode(x)
        for n in range(flow.steps):
            slopes: list[Tensor] = []
            for i, row in enumerate(flow.tableau.a):
                weight, bias = flow.parameters(n, i)
                stage = state
                for a, k in zip(row, slopes, strict=True):
                    stage = stage + flow.step * a * k if a else stage
                pre = flow.operator.product(stage, weight) + flow.operator.spread(bias)
                slopes.append(flow.activation.apply(pre))
            for b, k in zip(flow.tableau.b, slopes, strict=True):
                state = state + flow.step * b * k if b else state
        return self.model.read(state)[:, : self.model.classes]


def _refuses(problem: Problem) -> str | None:
    if "auto_LiRPA" not in sys.modules and find_spec("auto_LiRPA") is None:
        return "auto_LiRPA is not installed; 'crown' is the same bound"
    if not isinstance(problem.exact, nn.Module):
        return f"a {type(problem.exact).__name__} is not a torch.nn.Module"
    if isinstance(problem.exact, SNODE) and problem.snode is None:
        return f"the steps of the adaptive method of a {problem.exact.arch} depend on the input: no fixed network"
    return None


def _radii(problem: Problem) -> ClassRadii:
    """Return the radii, sample by sample: the package takes one ε for a batch."""
    from auto_LiRPA import BoundedModule, BoundedTensor  # type: ignore[import-not-found]
    from auto_LiRPA.perturbations import PerturbationLpNorm  # type: ignore[import-not-found]

    snode = problem.snode
    network = problem.exact if snode is None else Unrolled(snode)
    bounded = BoundedModule(network, problem.x[:1])
    eye = torch.eye(problem.exact.classes, dtype=problem.x.dtype, device=problem.x.device)
    slack = SLACK * problem.unit * (1 + problem.logits.abs().amax(1, keepdim=True))

    def below(at: Tensor, eps: Tensor) -> Tensor:
        found = []
        for i, radius in zip(at.tolist(), eps.tolist(), strict=True):
            y = int(problem.y[i])
            others = torch.arange(len(eye), device=eye.device) != y
            ball = PerturbationLpNorm(norm=ORDERS[problem.norm], eps=radius)
            rows = (eye[y] - eye)[others].unsqueeze(0)
            x = BoundedTensor(problem.x[i : i + 1], ball)
            lower, _ = bounded.compute_bounds(x=(x,), C=rows, method="CROWN", bound_upper=False)
            found.append(eye.new_full((len(eye),), torch.inf).masked_scatter(others, lower.detach().flatten()))
        return torch.stack(found) - slack[at]

    lo, hi = problem.exact.bounds
    radius, tried = LINES.radii(below, problem.margins - slack, hi - lo)
    return ClassRadii(radius=radius, passes=tried.double())


AUTO_LIRPA = Bound(
    name="auto-lirpa",
    title="CROWN as the package auto_LiRPA computes it; rounding by a stated slack, not proved",
    certifies="discrete",
    norms=("l1", "l2", "linf"),
    source="Xu et al., arXiv 2002.12920",
    refuses=_refuses,
    radii=_radii,
    extra=True,
)
