"""The running mean of the weights, which a training evaluates and keeps in place of the last ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """The exponential mean of a module's parameters over mini-batches: Σ κ^(n−i) θ_i / Σ κ^(n−i), κ = exp(−1/τ).

    Buffers, such as the statistics of batch norm, are those of the last mini-batch.

    Args:
        model: the module at the start; before the first mini-batch its weights are the mean.
        constant: τ ≥ 0 in mini-batches; 0 keeps the last weights.

    Source: Polyak and Juditsky, SIAM J. Control and Optimization 30 (1992), with exponential weights.
    """

    def __init__(self, model: nn.Module, constant: float) -> None:
        self._keep = math.exp(-1 / constant) if constant else 0.0
        self._share = 0.0  # Σ of the factors so far
        self._mean = {name: value.detach().clone() for name, value in model.named_parameters()}

    @torch.no_grad()
    def take(self, model: nn.Module) -> None:
        """Take the present weights into the mean."""
        old = self._keep if self._share else 0.0
        for name, value in model.named_parameters():
            self._mean[name].mul_(old).add_(value, alpha=1 - self._keep)
        self._share = self._keep * self._share + 1 - self._keep

    def export(self, model: nn.Module) -> dict[str, Tensor]:
        """Return a copy of the module's state dict with its parameters replaced by their mean."""
        state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        return state | {name: value / (self._share or 1.0) for name, value in self._mean.items()}

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {"share": self._share, "mean": self._mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self._share = state["share"]
        self._mean = {name: value.to(self._mean[name], copy=True) for name, value in state["mean"].items()}
