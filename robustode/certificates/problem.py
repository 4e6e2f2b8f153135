"""What every bound is given: a classifier in float64, samples, classes, norm, and room for its own rounding."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from robustode.models.base import Classifier, parameters_like
from robustode.models.snode import SNODE


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Samples to certify, in float64, with a copy of the model in float64 beside the deployed one.

    A bound is of the exact map with the deployed weights; `unit` says how coarsely the deployed model computes it.

    Attributes:
        deployed: the classifier as it answers.
        exact: the same weights in float64.
        x: (batch, *input_shape) float64, on the model's device.
        y: (batch,) int64, the classes to be certified.
        norm: "l1", "l2" or "linf".
    """

    deployed: Classifier
    exact: Classifier
    x: Tensor
    y: Tensor
    norm: str

    @property
    def unit(self) -> float:
        """Unit roundoff u of the deployed model: 2⁻²⁴ for float32, 2⁻⁵³ for float64."""
        return torch.finfo(parameters_like(self.deployed)[1]).eps / 2

    @cached_property
    def logits(self) -> Tensor:
        """Logits of the exact map at the samples, (batch, classes) float64."""
        with torch.no_grad():
            return self.exact(self.x)

    @cached_property
    def margins(self) -> Tensor:
        """z_y − z_k of the exact map, (batch, classes) float64; inf in column y."""
        margins = self.logits.gather(1, self.y[:, None]) - self.logits
        return margins.scatter(1, self.y[:, None], torch.inf)

    @property
    def snode(self) -> SNODE | None:
        """The exact model if it is an sNODE or its twin on a fixed grid."""
        return self.exact if isinstance(self.exact, SNODE) and self.exact.solver is None else None

    def part(self, keep: Tensor | slice) -> Problem:
        """Return the problem of some of the samples."""
        return Problem(deployed=self.deployed, exact=self.exact, x=self.x[keep], y=self.y[keep], norm=self.norm)


def make_problem(model: Classifier, x: Tensor, y: Tensor, norm: str) -> Problem:
    """Return the problem of a model, samples and labels, whose shapes have been checked."""
    device, _ = parameters_like(model)
    exact = copy.deepcopy(model).double() if isinstance(model, nn.Module) else model
    return Problem(deployed=model, exact=exact, x=x.to(device, torch.float64), y=y.to(device), norm=norm)
