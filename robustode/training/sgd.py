"""SGD and Adam with a cosine schedule, for every module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustode.errors import TrainingError, unknown
from robustode.models.snode import SNODE
from robustode.training.adversarial import Adversary, check_adversary
from robustode.training.average import Average
from robustode.training.checks import check_depth, check_names, check_number
from robustode.training.cost import Cost, terms
from robustode.training.log_norm import DepthLogNorm
from robustode.training.measure import correct_count, measure
from robustode.training.sobolev import Sobolev
from robustode.training.trainer import BatchReport

METHODS = ("sgd", "adam")


@dataclass(frozen=True, kw_only=True)
class SGDConfig:
    """How any module is trained by stochastic gradients; the learning rate falls to zero along a cosine.

    Args:
        method: "sgd" or "adam".
        epochs: passes over the data, ≥ 1.
        batch: samples of a mini-batch, ≥ 1.
        learning_rate: at the start, > 0.
        momentum: of "sgd", in [0, 1).
        nesterov: Nesterov's form of the momentum, for "sgd" with momentum > 0.
        weight_decay: ≥ 0, as in torch.optim.
        length: ℓ ≥ 0 of a Sobolev gradient in depth, put in place of the gradient before the optimiser sees it (0 is
            the L2 gradient); None takes the Euclidean gradient as it is. For sNODE and layered models only.
        averaging: time constant of the running mean of the weights, in epochs; 0 keeps the last weights.
        cost: the cost; μ₃, μ₄ and μ₅ for sNODE and layered models only.
        augment: images are flipped left to right half of the time and shifted by up to so many pixels, ≥ 0; None leaves
            them as they are.
        adversary: what every mini-batch is attacked by before the step on it; None for training on clean data.

    Raises:
        TrainingError: a value out of its range.
    """

    method: str = "sgd"
    epochs: int = 20
    batch: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    length: float | None = None
    averaging: float = 0.0
    cost: Cost = field(default_factory=Cost)
    augment: int | None = None
    adversary: Adversary | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown("training method", self.method, METHODS, TrainingError)
        for name in ("epochs", "batch"):
            check_number(name, getattr(self, name), whole=True, least=1)
        check_number("learning_rate", self.learning_rate, positive=True)
        check_number("momentum", self.momentum, below=1.0)
        check_number("weight_decay", self.weight_decay)
        check_number("averaging", self.averaging)
        if self.length is not None:
            check_number("length", self.length)
        if self.augment is not None:
            check_number("augment", self.augment, whole=True)
        check_adversary(self.adversary)

    @property
    def name(self) -> str:
        """Name of the method."""
        return self.method

    def replace(self, **changes: Any) -> SGDConfig:
        """Return a copy with other values; raise `TrainingError` for an unknown name."""
        check_names(changes, (f.name for f in fields(self)))
        return replace(self, **changes)

    def trainer(self, model: nn.Module, batches: int) -> SGD:
        """Start training a module by `batches` mini-batches in all."""
        check_depth(model, self.cost)
        shape = tuple(getattr(model, "input_shape", ()))
        if self.augment is not None and len(shape) != 3:
            expected, fix = "images (channels, height, width)", "Leave augment out."
            raise TrainingError("augment", expected=expected, got=f"inputs of shape {shape}", fix=fix)
        if self.length is not None and not isinstance(model, SNODE):
            fix = "Leave length out."
            raise TrainingError(
                "Sobolev gradient", expected="an sNODE or layered model", got=type(model).__name__, fix=fix
            )
        return SGD(model, self, batches)


class SGD:
    """SGD or Adam at work on one module, by autograd."""

    def __init__(self, model: nn.Module, config: SGDConfig, batches: int) -> None:
        self._model, self._cost = model, config.cost
        parameters = [p for p in model.parameters() if p.requires_grad]
        rate, decay = config.learning_rate, config.weight_decay
        if config.method == "adam":
            self._optimiser: torch.optim.Optimizer = torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        else:
            nesterov = config.nesterov and config.momentum > 0
            self._optimiser = torch.optim.SGD(
                parameters, lr=rate, momentum=config.momentum, nesterov=nesterov, weight_decay=decay
            )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, T_max=batches)
        self._sobolev: Sobolev | None = None
        if config.length is not None and isinstance(model, SNODE):
            self._sobolev = Sobolev(len(model.bias), model.horizon, config.length, like=model.weight.detach())
        self._log_norm = DepthLogNorm(model.config["activation"]) if isinstance(model, SNODE) else None
        self._average = Average(model, config.averaging * max(1, batches // config.epochs))

    def step(self, x: Tensor, y: Tensor) -> BatchReport:
        """Take one step on one mini-batch."""
        self._optimiser.zero_grad(set_to_none=True)
        state, terminal, path = measure(self._model, self._cost, x, y, self._log_norm)
        (terminal.sum() + path.sum()).backward()
        if self._sobolev is not None:
            for parameter in self._model.parameters():  # weight and bias: all that such a model has
                if parameter.grad is not None:
                    parameter.grad = self._sobolev.gradient(parameter.grad)
        self._optimiser.step()
        self._schedule.step()
        self._average.take(self._model)
        values = terms(terminal, path)
        return BatchReport(terms=values, correct=correct_count(self._model, state, y), final=values.total)

    def export(self) -> dict[str, Tensor]:
        """Return a copy of the state dict to keep: averaged, or as it is."""
        return self._average.export(self._model)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside the model's weights to go on to the bit."""
        return {
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": self._average.state(),
            "log_norm": None if self._log_norm is None else self._log_norm.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._average.restore(state["average"])
        if self._log_norm is not None:
            self._log_norm.restore(state["log_norm"])
