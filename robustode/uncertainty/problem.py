"""What every method of propagation is given, and the logits that it may ask for, at the output or at every depth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustode.errors import OptionError
from robustode.models.base import Classifier
from robustode.models.snode import SNODE
from robustode.uncertainty.covariance import Root
from robustode.uncertainty.gaussian import LogitsAlongDepth
from robustode.uncertainty.weights import WeightNoise


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """The noise and what is asked of it.

    Attributes:
        model: the classifier.
        root: factor of the input covariance.
        weights: noise of the weights, or None.
        variances: of each parameter under `weights`, or None.
        along: whether every depth is asked for; the model is then an sNODE on a fixed grid.
        draws: Monte Carlo draws for each sample.
        generator: source of the Monte Carlo draws.
    """

    model: Classifier
    root: Root
    weights: WeightNoise | None
    variances: dict[str, Tensor] | None
    along: bool
    draws: int
    generator: torch.Generator | None

    @property
    def depths(self) -> int:
        """Number of depths in a result: N + 1, or 1 for the output alone."""
        return snode(self.model).steps + 1 if self.along else 1

    @torch.no_grad()
    def logits(self, x: Tensor, parameters: dict[str, Tensor] | None = None) -> Tensor:
        """Return the logits at all depths asked for, (batch, depths, classes), under `parameters` if given."""
        if self.along:
            model = snode(self.model)
            flow = model.flow if parameters is None else dataclasses.replace(model.flow, **parameters)
            states = [model.read(state)[:, : model.classes] for state in flow.states(model.encode(x))]
            return torch.stack(states, dim=1)
        if parameters is None:
            return self.model(x)[:, None]
        assert isinstance(self.model, nn.Module)  # it has named parameters
        return torch.func.functional_call(self.model, parameters, (x,))[:, None]

    def along_depth(self, mean: Tensor, cov: Tensor) -> LogitsAlongDepth | None:
        """Return mean (batch, depths, classes) and covariance as the part of a result, if it was asked for."""
        if not self.along:
            return None
        model = snode(self.model)
        depth = torch.arange(self.depths, dtype=torch.float64) * (model.horizon / model.steps)
        return LogitsAlongDepth(depth=depth, mean=mean, cov=cov)


def fused(model: Classifier) -> bool:
    """Whether the model is an sNODE on a fixed grid."""
    return isinstance(model, SNODE) and model.solver is None


def snode(model: Classifier) -> SNODE:
    """Return the model as the sNODE on a fixed grid that it was found to be.

    Raises:
        OptionError: it is none.
    """
    if isinstance(model, SNODE) and model.solver is None:
        return model
    fix = "Ask for the output alone: along_depth=False."
    got = type(model).__name__
    if isinstance(model, SNODE):
        got = f"one with the adaptive solver {model.solver}, which has no grid that samples share"
        fix = "Take a fixed grid: model.with_solver(method='rk4', steps=N)."
    raise OptionError("depth", expected="an sNODE or layered model on a fixed grid", got=got, fix=fix)


def double(values: Tensor) -> Tensor:
    """Return values in float64, on the CPU where the device has none."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def gram(rows: Tensor) -> Tensor:
    """Return R Rᵀ for rows (..., k, r): symmetric positive semidefinite, (..., k, k)."""
    out = rows @ rows.mT
    return (out + out.mT) / 2
