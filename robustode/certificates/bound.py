"""One interface for every bound: which models and norms it takes, and the radii that it certifies, class by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from robustode.certificates.problem import Problem


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassRadii:
    """What a bound certifies of every sample and class.

    Attributes:
        radius: (batch, classes) float64, in raw-input units: no input nearer than this has z_k ≥ z_y. inf in column y;
            0 where nothing is certified.
        passes: (batch,) float64, its cost in forward passes of one sample.
    """

    radius: Tensor
    passes: Tensor


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A way to certify.

    Attributes:
        name: as `methods=` and the records name it.
        title: what it is, in a few words.
        certifies: "discrete", the deployed discrete map; or "flow", the solution of the ODE.
        norms: that it takes.
        source: paper or section.
        refuses: returns why a model has no such bound, or None if it has one; costs next to nothing.
        radii: the bound.
        extra: whether it is computed only where it is asked for by name.
        fallback: whether it is computed without being asked for, too, where the model has no other bound.
        covered_by: bounds that are never below it: where one of them is computed, it is not unless it is asked for.
    """

    name: str
    title: str
    certifies: str
    norms: tuple[str, ...]
    source: str
    refuses: Callable[[Problem], str | None]
    radii: Callable[[Problem], ClassRadii]
    extra: bool = False
    fallback: bool = False
    covered_by: tuple[str, ...] = ()
