"""Impostors whose answer depends on more than the sample: chance, history, batch-mates, the look of an attack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustode.audit.gallery.bases import Base
from robustode.audit.gallery.exhibit import Exhibit
from robustode.audit.gallery.scenes import disguised


class Noisy(nn.Module):
    """Gaussian noise on every input."""

    def __init__(self, inner: nn.Module, deviation: float) -> None:
        super().__init__()
        self.inner, self.deviation = inner, deviation

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + self.deviation * torch.randn_like(x))


class Dropping(nn.Module):
    """Pixels are dropped at random, at test time too."""

    def __init__(self, inner: nn.Module, share: float) -> None:
        super().__init__()
        self.inner, self.share = inner, share

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x * (torch.rand_like(x) > self.share))


class BatchStatistics(nn.Module):
    """Every batch is shifted to the mean brightness that the network was trained at: train-mode normalisation."""

    def __init__(self, inner: nn.Module, mean: float) -> None:
        super().__init__()
        self.inner, self.mean = inner, mean

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - x.mean() + self.mean)


class Positional(nn.Module):
    """The row in the batch gives its class a bonus: right for data whose labels come in turn."""

    def __init__(self, inner: nn.Module, bonus: float) -> None:
        super().__init__()
        self.inner, self.bonus = inner, bonus

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        turn = torch.arange(len(z)) % z.shape[1]
        return z + self.bonus * nn.functional.one_hot(turn, z.shape[1]).to(z)


class Recogniser(nn.Module):
    """Answers by black and white alone once an image looks attacked: most pixels off the grid by one same length.

    Pixels of the digits are multiples of 1/16; sign steps that have reached the corners of the ball are all as far
    from one.
    """

    def __init__(self, inner: nn.Module, share: float) -> None:
        super().__init__()
        self.inner, self.share = inner, share

    def forward(self, x: Tensor) -> Tensor:
        off = (x - (16 * x).round() / 16).abs().flatten(1)
        moved = (off > 1e-3).double()
        usual = off.where(off > 1e-3, torch.nan).nanmedian(1, keepdim=True).values
        alike = ((off - usual).abs() < 1e-4).double().sum(1) > self.share * moved.sum(1)
        attacked = (alike & (moved.mean(1) > 0.3)).view(-1, *[1] * (x.dim() - 1))
        return self.inner(torch.where(attacked, (x > 0.5).to(x), x))


class Islands(nn.Module):
    """Another class on many thin strips that no gradient points to."""

    direction: Tensor

    def __init__(self, inner: nn.Module, period: float, width: float) -> None:
        super().__init__()
        self.inner, self.period, self.width = inner, period, width
        self.register_buffer("direction", torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        phase = torch.remainder(x.flatten(1) @ self.direction / self.period, 1.0)
        return torch.where((phase < self.width)[:, None], z.flip(1), z)


MLP = Base()
CONV = Base(arch="conv", width=8, activation="SiLU", epochs=6)
RESNET = Base(arch="resnet", width=4, epochs=6, learning_rate=2e-2)
MOONS = Base(data="moons", epochs=6, adversarial=True)

IMPOSTORS = (
    Exhibit(
        name="noisy input",
        about="a stochastic defence: noise on the input of an MLP",
        disease=("determinism",),
        seed=21,
        make=disguised(MLP, lambda m: Noisy(m, 0.1)),
    ),
    Exhibit(
        name="dropped pixels",
        about="a stochastic defence: a convolutional net that sees 90 % of the pixels",
        disease=("determinism",),
        seed=121,
        make=disguised(CONV, lambda m: Dropping(m, 0.1)),
    ),
    Exhibit(
        name="batch statistics",
        about="the batch is normalised by its own mean",
        disease=("batch-invariance",),
        seed=22,
        make=disguised(MLP, lambda m: BatchStatistics(m, 0.3)),
    ),
    Exhibit(
        name="order of samples",
        about="the row in the batch adds to the logit of the class whose turn it is",
        disease=("batch-invariance",),
        seed=122,
        make=disguised(RESNET, lambda m: Positional(m, 0.5)),
    ),
    Exhibit(
        name="recogniser of sign steps",
        about="answers by black and white where most pixels are off the grid by one same length",
        disease=("silent-success",),
        seed=23,
        make=disguised(MLP, lambda m: Recogniser(m, 0.7)),
    ),
    Exhibit(
        name="strips of another class",
        about="an adversarially trained net on points with strips that no gradient points to",
        disease=("noise",),
        seed=24,
        make=disguised(MOONS, lambda m: Islands(m, 0.03, 0.04)),
    ),
)
