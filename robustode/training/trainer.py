"""What every optimiser offers to `fit`: one mini-batch at a time, a report of it, and the weights to be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from robustode.training.adversarial import Adversary
from robustode.training.cost import Cost, Terms


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """What happened on one mini-batch, as the optimiser saw it: attacked, if there is an adversary.

    Attributes:
        terms: of the cost, before the weights moved: an unseen batch in the first pass.
        correct: samples classified correctly, likewise.
        final: the cost on the same batch after the weights moved; where the optimiser does not look, as before.
    """

    terms: Terms
    correct: int
    final: float


class Trainer(Protocol):
    """An optimiser at work on one model."""

    def step(self, x: Tensor, y: Tensor) -> BatchReport:
        """Move the weights on one mini-batch; may raise `FloatingPointError` where values are not finite."""
        ...

    def export(self) -> dict[str, Tensor]:
        """Return a copy of the state dict to evaluate and keep (averaged, if the optimiser averages)."""
        ...

    def state(self) -> dict[str, Any]:
        """Return tensors and numbers from which `restore` goes on to the bit, beside the model's own weights."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        ...


class OptimiserConfig(Protocol):
    """A frozen configuration that makes a `Trainer`."""

    @property
    def epochs(self) -> int:
        """Passes over the data."""
        ...

    @property
    def batch(self) -> int:
        """Samples of a mini-batch."""
        ...

    @property
    def cost(self) -> Cost:
        """The cost."""
        ...

    @property
    def adversary(self) -> Adversary | None:
        """What attacks every mini-batch."""
        ...

    def trainer(self, model: nn.Module, batches: int) -> Trainer:
        """Start training `model`; `batches` is the number of mini-batches of all epochs together."""
        ...

    def replace(self, **changes: Any) -> OptimiserConfig:
        """Return a copy with other values; unknown names are errors."""
        ...
