"""Expectation over transformation: a randomised model seen through the mean of several passes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustode.errors import OptionError
from robustode.models.base import Classifier


class Averaged(nn.Module):
    """The mean logits of `draws` passes of a model that answers differently on repeats; gradients are averaged alike.

    Source: Athalye et al. 2018, arXiv 1802.00420.
    """

    def __init__(self, model: Classifier, draws: int) -> None:
        super().__init__()
        if draws < 1:
            raise OptionError("eot", expected="a number of draws ≥ 1", got=draws)
        self.model, self.draws = model, draws
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean logits."""
        return torch.stack([self.model(x) for _ in range(self.draws)]).mean(0)


@torch.no_grad()
def answers_differently(model: Classifier, x: Tensor, repeats: int = 4) -> bool:
    """Return whether any label changes when the same batch is given to the model `repeats` times more."""
    first = model(x).argmax(1)
    return any(bool((model(x).argmax(1) != first).any()) for _ in range(repeats))
