"""A bound that is exact on affine classifiers, in the place of those of the package, and one that lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from robustode.certificates import BOUNDS
from robustode.certificates.bound import Bound, ClassRadii
from robustode.certificates.problem import Problem
from tests.problems import Affine

DUAL = {"l1": torch.inf, "l2": 2.0, "linf": 1.0}


def exact_radii(problem: Problem, factor: float = 1.0) -> ClassRadii:
    """(z_y − z_k) / ‖w_y − w_k‖ in the dual norm, times a factor: above 1 it is a lie."""
    weight = _inner(problem).weight.detach()
    rows = (weight[problem.y][:, None] - weight).norm(dim=2, p=DUAL[problem.norm])
    radius = (factor * problem.margins / rows).clamp_min(0)
    radius = radius.scatter(1, problem.y[:, None], torch.inf)
    return ClassRadii(radius=radius, passes=torch.full((len(radius),), 2.0, dtype=torch.float64))


def refuses(problem: Problem) -> str | None:
    return None if isinstance(_inner(problem), Affine) else f"{type(_inner(problem)).__name__} is not affine"


def _inner(problem: Problem) -> Any:
    return getattr(problem.exact, "module", problem.exact)


def bound(name: str = "affine", radii: Callable[[Problem], ClassRadii] = exact_radii, **values) -> Bound:
    """A stand-in of the deployed map in L2 and L∞."""
    norms = values.pop("norms", ("l2", "linf"))
    made = {"name": name, "title": "exact", "certifies": "discrete", "source": "algebra", "refuses": refuses} | values
    return Bound(norms=norms, radii=radii, **made)


@contextmanager
def only(*bounds: Bound) -> Iterator[None]:
    """Have these bounds and no others."""
    with mock.patch.dict(BOUNDS, {one.name: one for one in bounds}, clear=True):
        yield
