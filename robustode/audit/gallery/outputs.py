"""Impostors whose outputs mislead the losses of attacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustode.audit.gallery.bases import Base
from robustode.audit.gallery.exhibit import Exhibit
from robustode.audit.gallery.scenes import disguised


class Scaled(nn.Module):
    """Logits times a constant: labels stay, the softmax saturates."""

    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.factor


class Probabilities(nn.Module):
    """The softmax of the logits over a temperature."""

    def __init__(self, inner: nn.Module, temperature: float = 1.0) -> None:
        super().__init__()
        self.inner, self.temperature = inner, temperature

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) / self.temperature).softmax(1)


class Rounded(nn.Module):
    """Logits rounded to multiples of `unit`; with `through` the gradient is that of the logits before."""

    def __init__(self, inner: nn.Module, unit: float, through: bool) -> None:
        super().__init__()
        self.inner, self.unit, self.through = inner, unit, through

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        rounded = (z / self.unit).round() * self.unit
        return z + (rounded - z).detach() if self.through else rounded


class Clamped(nn.Module):
    """Differences of the logits from the largest but one, clamped hard."""

    def __init__(self, inner: nn.Module, steepness: float) -> None:
        super().__init__()
        self.inner, self.steepness = inner, steepness

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        centre = z.topk(2, dim=1).values.mean(1, keepdim=True)
        return torch.clamp(self.steepness * (z - centre), -1, 1)


class Decoy(nn.Module):
    """The last class follows just below the largest logit, along a ripple of its own: losses chase it in vain."""

    direction: Tensor

    def __init__(self, inner: nn.Module, strength: float) -> None:
        super().__init__()
        self.inner, self.strength = inner, strength
        self.register_buffer("direction", torch.randn(64) / 8)

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        chase = torch.sigmoid(self.strength * (x.flatten(1) - 0.5) @ self.direction)[:, None]
        decoy = z.amax(1, keepdim=True) - 0.3 + 0.25 * (chase - 1)
        return torch.cat([20 * z, 20 * decoy], 1)


class Hole(nn.Module):
    """NaN where the image is brighter than `above` in the mean."""

    def __init__(self, inner: nn.Module, above: float) -> None:
        super().__init__()
        self.inner, self.above = inner, above

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1, keepdim=True) > self.above
        return torch.where(bright, torch.nan, self.inner(x))


class HalfPrecision(nn.Module):
    """A large gain in float16 between network and logits, which overflows where logits are large."""

    def __init__(self, inner: nn.Module, gain: float) -> None:
        super().__init__()
        self.inner, self.gain = inner, gain

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) * self.gain).half().float() / self.gain


MLP = Base()
CONV = Base(arch="conv", width=8, activation="SiLU", epochs=6)
LAYERED = Base(arch="layered", activation="tanh", learning_rate=1e-2, epochs=6)

IMPOSTORS = (
    Exhibit(
        name="saturated logits",
        about="the logits of an MLP times 1000",
        disease=("saturation",),
        seed=11,
        make=disguised(MLP, lambda m: Scaled(m, 1000.0)),
    ),
    Exhibit(
        name="cold softmax",
        about="the logits of a layered net over a temperature of 0.02",
        disease=("saturation",),
        seed=111,
        make=disguised(LAYERED, lambda m: Scaled(m, 50.0)),
    ),
    Exhibit(
        name="probabilities for logits",
        about="an MLP with a softmax at its end",
        disease=("logits",),
        seed=12,
        make=disguised(MLP, Probabilities),
    ),
    Exhibit(
        name="tempered probabilities",
        about="a convolutional net with a softmax at temperature 0.5 at its end",
        disease=("logits",),
        seed=112,
        make=disguised(CONV, lambda m: Probabilities(m, 0.5)),
    ),
    Exhibit(
        name="rounded logits",
        about="the logits of an MLP in steps of 0.5, without a gradient",
        disease=("zero-gradient",),
        seed=13,
        make=disguised(MLP, lambda m: Rounded(m, 0.5, False)),
    ),
    Exhibit(
        name="coarse logits",
        about="integer logits with the gradient passed straight through: ties at the top",
        disease=("saturation",),
        seed=113,
        make=disguised(LAYERED, lambda m: Rounded(m, 4.0, True)),
    ),
    Exhibit(
        name="clamped logits",
        about="a hard clamp around the two largest logits of a convolutional net",
        disease=("zero-gradient",),
        seed=114,
        make=disguised(CONV, lambda m: Clamped(m, 10.0)),
    ),
    Exhibit(
        name="decoy class",
        about="an eleventh class just below the largest logit takes the gradient of the cross-entropy",
        disease=("loss-diversity",),
        seed=15,
        make=disguised(MLP, lambda m: Decoy(m, 3.0)),
    ),
    Exhibit(
        name="NaN region",
        about="an MLP without an answer on bright images",
        disease=("finite",),
        seed=16,
        make=disguised(MLP, lambda m: Hole(m, 0.36)),
    ),
    Exhibit(
        name="float16 overflow",
        about="a gain in half precision that overflows where a convolutional net is sure",
        disease=("finite",),
        seed=116,
        make=disguised(CONV, lambda m: HalfPrecision(m, 6000.0)),
    ),
)
