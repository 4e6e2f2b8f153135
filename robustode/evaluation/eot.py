"""Expectation over transformation: a randomised model seen through the mean of several passes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustode.errors import OptionError
from robustode.evaluation.judge import AGREE, same_answers
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
        self.nfe: float | None = getattr(model, "nfe", None)
        self.last_nfe: Tensor | None = None  # of an adaptive model: of all draws together, (batch,)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean logits."""
        answers, taken = [], []
        for _ in range(self.draws):
            answers.append(self.model(x))
            taken.append(getattr(self.model, "last_nfe", None))
        self.last_nfe = None if taken[0] is None else torch.stack(taken).sum(0)
        return torch.stack(answers).mean(0)


@torch.no_grad()
def answers_differently(model: Classifier, x: Tensor, repeats: int = 4) -> bool:
    """Whether a label changes, or a logit by more than 1e-4 of the largest, when the batch is given again."""
    first = model(x)
    size = float(first.nan_to_num(0.0, 0.0, 0.0).abs().max()) if len(first) else 0.0
    return not all(same_answers(first, model(x), AGREE * max(1.0, size)) for _ in range(repeats))
