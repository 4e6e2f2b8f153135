"""The cost and the accuracy of any model on a batch and on a data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustode.data.dataset import Data
from robustode.models.base import parameters_like
from robustode.models.snode import SNODE
from robustode.solvers.activations import activation
from robustode.training.cost import Cost, Terms, terms
from robustode.training.log_norm import DepthLogNorm

CHUNK = 1000  # samples evaluated at a time


def rest_point(model: nn.Module) -> float:
    """Return T σ(0), the final state of the origin under zero weights; 0 for a module without depth."""
    if not isinstance(model, SNODE):
        return 0.0
    return model.horizon * activation(model.config["activation"]).at_zero


def class_count(model: nn.Module, state: Tensor) -> int:
    """Return how many leading components of the state are logits."""
    return int(getattr(model, "classes", state.shape[1]))


def correct_count(model: nn.Module, state: Tensor, labels: Tensor) -> int:
    """Return how many samples of a batch are classified as labelled."""
    return int((state[:, : class_count(model, state)].argmax(1) == labels).sum())


def measure(
    model: nn.Module, cost: Cost, x: Tensor, labels: Tensor, log_norm: DepthLogNorm | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the model and return (x(T) or logits, `Cost.terminal`, `Cost.path`), with a graph where gradients are on.

    `log_norm` is that of earlier weights to go on from; without, the search for μ starts afresh.
    """
    state, terminal = _terminal(model, cost, x, labels)
    return state, terminal, _path(model, cost, state, log_norm)


@torch.no_grad()
def evaluate(model: nn.Module, data: Data, cost: Cost) -> tuple[float, Terms]:
    """Put the model in eval mode; return its accuracy on the data, a fraction, and the terms of the cost."""
    model.eval()
    device, dtype = parameters_like(model)
    correct, total = 0, torch.zeros(3, dtype=torch.float64)
    for x, y in zip(data.x.split(CHUNK), data.y.split(CHUNK), strict=True):
        labels = y.to(device)
        state, terminal = _terminal(model, cost, x.to(device, dtype), labels)
        correct += correct_count(model, state, labels)
        total += terminal.double().cpu() * len(y)
    return correct / len(data), terms(total / len(data), _path(model, cost, total, None))


def _terminal(model: nn.Module, cost: Cost, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(model, SNODE):
        state = model(x)
        return state, cost.terminal(state, labels, classes=class_count(model, state))
    state = model.final_state(x)
    return state, cost.terminal(state, labels, classes=model.classes, rest=rest_point(model))


def _path(model: nn.Module, cost: Cost, like: Tensor, log_norm: DepthLogNorm | None) -> Tensor:
    if not isinstance(model, SNODE):
        return like.new_zeros(2)
    norms = None
    if cost.mu5:
        norms = (log_norm or DepthLogNorm(model.config["activation"]))(model.weight).values
    return cost.path(model.weight, model.bias, horizon=model.horizon, log_norms=norms)
