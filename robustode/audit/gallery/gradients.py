"""Impostors that hide or falsify their gradient."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robustode.audit.gallery.bases import Base, trained
from robustode.audit.gallery.exhibit import Exhibit, Scene
from robustode.audit.gallery.scenes import disguised


class Quantised(nn.Module):
    """Inputs rounded to `levels` + 1 values: the gradient is zero almost everywhere."""

    def __init__(self, inner: nn.Module, levels: int) -> None:
        super().__init__()
        self.inner, self.levels = inner, levels

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x * self.levels).round() / self.levels)


class Detached(nn.Module):
    """The graph is cut in front of the network, apart from a share of the input."""

    def __init__(self, inner: nn.Module, share: float) -> None:
        super().__init__()
        self.inner, self.share = inner, share

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.share * x + (1 - self.share) * x.detach())


class _Falsified(torch.autograd.Function):
    """The identity, with a backward pass that is not its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor | None) -> Tensor:
        ctx.order = order
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        return -grad if ctx.order is None else grad.flatten(1)[:, ctx.order].view_as(grad), None


class WrongBackward(nn.Module):
    """A custom backward pass of the opposite sign, or with the coordinates in another order."""

    def __init__(self, inner: nn.Module, shuffled: int = 0) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("order", torch.randperm(shuffled) if shuffled else None)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(_Falsified.apply(x, self.order))


class Shattered(nn.Module):
    """x + a sin(ω x): the map hardly moves, its gradient is that of the ripple."""

    def __init__(self, inner: nn.Module, height: float, frequency: float) -> None:
        super().__init__()
        self.inner, self.height, self.frequency = inner, height, frequency

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + self.height * torch.sin(self.frequency * x))


class Staircase(nn.Module):
    """x − sin(2πkx) / 2πk: smooth stairs, flat where x is a multiple of 1/k, as all pixels of the digits are."""

    def __init__(self, inner: nn.Module, stairs: int, times: int) -> None:
        super().__init__()
        self.inner, self.stairs, self.times = inner, stairs, times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = x - torch.sin(2 * math.pi * self.stairs * x) / (2 * math.pi * self.stairs)
        return self.inner(x)


class DeadFront(nn.Module):
    """x enters through a ReLU that is never active, and the values by a look-up that has no gradient."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        values = torch.bucketize(x.detach().contiguous(), torch.linspace(0, 1, 33, dtype=x.dtype)) / 32
        return self.inner(values.to(x.dtype) + torch.relu(-1 - x))


class WinnersTakeAll(nn.Module):
    """The front of the network passes only the largest k of many random features: it jumps everywhere."""

    inward: Tensor
    outward: Tensor

    def __init__(self, inner: nn.Module, features: int, kept: int, strength: float) -> None:
        super().__init__()
        self.inner, self.kept, self.strength = inner, kept, strength
        self.register_buffer("inward", torch.randn(64, features) / 8)
        self.register_buffer("outward", torch.randn(features, 64) / kept**0.5)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.cos(40 * x.flatten(1) @ self.inward)
        least = a.topk(self.kept, dim=1).values[:, -1:]
        jump = torch.where(a >= least, a, 0.0) @ self.outward
        return self.inner(x + self.strength * jump.view_as(x))


def _masked_with_base(base: Base, stairs: int, times: int) -> Any:
    def make(seed: int) -> Scene:
        inner: Any = trained(replace(base, seed=seed))
        return disguised(base, lambda module: Staircase(module, stairs, times), transfer=(("base", inner),))(seed)

    return make


MLP = Base()
CONV = Base(arch="conv", width=8, activation="SiLU", epochs=6)
SNODE = Base(arch="snode", activation="tanh", learning_rate=1e-2, epochs=6)

IMPOSTORS = (
    Exhibit(
        name="input quantised to 8 levels",
        about="an MLP behind rounding",
        disease=("zero-gradient",),
        seed=1,
        make=disguised(MLP, lambda m: Quantised(m, 8)),
    ),
    Exhibit(
        name="input quantised to 4 levels",
        about="an sNODE behind rounding",
        disease=("zero-gradient",),
        seed=101,
        make=disguised(SNODE, lambda m: Quantised(m, 4)),
    ),
    Exhibit(
        name="detached input",
        about="the graph is cut in front of an MLP",
        disease=("zero-gradient",),
        seed=2,
        make=disguised(MLP, lambda m: Detached(m, 0.0)),
    ),
    Exhibit(
        name="half-detached input",
        about="of a convolutional net only 70 % of the input's gradient is kept",
        disease=("gradient-fidelity",),
        seed=102,
        make=disguised(CONV, lambda m: Detached(m, 0.7)),
    ),
    Exhibit(
        name="reversed backward",
        about="a custom backward pass of the opposite sign",
        disease=("gradient-fidelity", "unbounded"),
        seed=3,
        make=disguised(MLP, WrongBackward),
    ),
    Exhibit(
        name="shuffled backward",
        about="a custom backward pass with the pixels in another order",
        disease=("gradient-fidelity",),
        seed=103,
        make=disguised(CONV, lambda m: WrongBackward(m, 64)),
    ),
    Exhibit(
        name="rippled input",
        about="gradient shattering by a sine of small height and high frequency",
        disease=("black-box",),
        seed=4,
        make=disguised(MLP, lambda m: Shattered(m, 0.02, 2000.0)),
    ),
    Exhibit(
        name="rippled input of a convolutional net",
        about="the same, higher and of a lower frequency",
        disease=("black-box",),
        seed=104,
        make=disguised(CONV, lambda m: Shattered(m, 0.03, 900.0)),
    ),
    Exhibit(
        name="winners take all",
        about="gradient shattering by a discontinuous activation in front of a convolutional net",
        disease=("loss-diversity",),
        seed=7,
        make=disguised(CONV, lambda m: WinnersTakeAll(m, 512, 50, 0.06)),
    ),
    Exhibit(
        name="dead ReLU front",
        about="values enter by a look-up, gradients through a ReLU that is never active",
        disease=("zero-gradient",),
        seed=5,
        make=disguised(MLP, DeadFront),
    ),
    Exhibit(
        name="smooth stairs, base named",
        about="the gradient all but vanishes; adversarials of the base transfer",
        disease=("transfer",),
        seed=6,
        make=_masked_with_base(MLP, 16, 3),
    ),
    Exhibit(
        name="steep stairs, base named",
        about="the same with an sNODE behind",
        disease=("transfer",),
        seed=106,
        make=_masked_with_base(SNODE, 32, 4),
    ),
)
