"""The sick modules of the held-out half."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Blocks(nn.Module):
    """Mean and differences of every 2×2 block rounded to multiples of 1/8, as a lossy compression does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        mean = nn.functional.avg_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return self.inner((8 * mean).round() / 8 + (8 * (x - mean)).round() / 8)


class Steep(nn.Module):
    """tanh of the logits' distance from the middle of the two largest, so steep that its slope rounds to zero."""

    def __init__(self, inner: nn.Module, steepness: float) -> None:
        super().__init__()
        self.inner, self.steepness = inner, steepness

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        return torch.tanh(self.steepness * (z - z.topk(2, dim=1).values.mean(1, keepdim=True)))


class HalfSeen(nn.Module):
    """Two networks, one of which sees a copy of the input that is cut from the graph."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x.detach())


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.mask = mask
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.mask.to(grads[0]), None


class MaskedBackward(nn.Module):
    """The backward pass forgets the pixels of the middle."""

    mask: Tensor

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        mask = torch.ones(1, 8, 8)
        mask[:, 2:6, 2:6] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(_Masked.apply(x, self.mask))


class Roots(nn.Module):
    """The square of the square root: the identity, whose reverse pass is 0 · ∞ at black pixels."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.sqrt() ** 2)


class Bright(nn.Module):
    """The logarithm of the brightness below a threshold is added to all logits: NaN on brighter images."""

    def __init__(self, inner: nn.Module, above: float) -> None:
        super().__init__()
        self.inner, self.above = inner, above

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + (self.above - x.flatten(1).mean(1, keepdim=True)).log()


class Shifting(nn.Module):
    """Every image is shifted by −1, 0 or 1 pixels at random."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.arange(x.shape[2])[None] - torch.randint(-1, 2, (len(x), 1))
        return self.inner(x[torch.arange(len(x))[:, None], :, rows % x.shape[2]].movedim(2, 1).contiguous())


class NoisyLogits(nn.Module):
    """Gaussian noise on the logits."""

    def __init__(self, inner: nn.Module, deviation: float) -> None:
        super().__init__()
        self.inner, self.deviation = inner, deviation

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        return z + self.deviation * torch.randn_like(z)


class TrainMode(nn.Module):
    """Logits are normalised by the statistics of their batch, as batch normalisation left in training mode does."""

    def __init__(self, inner: nn.Module, size: float) -> None:
        super().__init__()
        self.inner, self.size = inner, size

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        return self.size * (z - z.mean()) / (z.std(unbiased=False) + 1e-3)


class Queue(nn.Module):
    """A sample's logits are mixed with those of the one before it in the batch."""

    def __init__(self, inner: nn.Module, share: float) -> None:
        super().__init__()
        self.inner, self.share = inner, share

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        return (1 - self.share) * z + self.share * z.roll(1, 0)


class MeanOfProbabilities(nn.Module):
    """Two networks whose probabilities are averaged."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return (self.first(x).softmax(1) + self.second(x).softmax(1)) / 2
