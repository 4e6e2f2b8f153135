"""Models and points whose answers are known in closed form."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from robustode.models.conv_snode import ConvSNODE
from robustode.models.snode import SNODE

Model = TypeVar("Model", bound=SNODE)


class Affine(nn.Module):
    """z = W x + b on flattened inputs: the distance to each class boundary is known exactly."""

    def __init__(self, weight: Tensor, bias: Tensor, input_shape: tuple[int, ...], bounds=(0.0, 1.0)) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.classes, self.input_shape, self.bounds = len(bias), input_shape, bounds

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.t() + self.bias


def random_affine(classes=4, input_shape=(1, 3, 4), seed=0, dtype=torch.float64, bounds=(0.0, 1.0)) -> Affine:
    """An affine classifier with Gaussian rows."""
    g = torch.Generator().manual_seed(seed)
    d = torch.Size(input_shape).numel()
    weight = torch.randn(classes, d, generator=g, dtype=dtype)
    bias = torch.randn(classes, generator=g, dtype=dtype)
    return Affine(weight, bias, input_shape, bounds).eval()


def random_points(shape: tuple[int, ...], n: int, seed=1, dtype=torch.float64, lo=0.0, hi=1.0) -> Tensor:
    """Uniform points of the box."""
    g = torch.Generator().manual_seed(seed)
    return lo + (hi - lo) * torch.rand(n, *shape, generator=g, dtype=dtype)


def random_snode(*, scale=1.0, seed=0, dtype=torch.float64, **config) -> SNODE:
    """An sNODE with weights of size `scale` / √features, smooth in depth, so that its map is far from the identity."""
    config = {"input_shape": (1, 3, 4), "classes": 4, "steps": 12, "knots": 4, "horizon": 2.0} | config
    model = SNODE(seed=seed, **config).to(dtype)
    return _scaled(model, scale * model.weight.shape[-1] ** 0.5)


def random_conv_snode(*, scale=1.0, seed=0, dtype=torch.float64, **config) -> ConvSNODE:
    """A convolutional sNODE, its kernels likewise; images of 4 × 6, so that a swap of height and width shows."""
    defaults = {"input_shape": (2, 4, 6), "classes": 3, "channels": 4, "steps": 12, "knots": 4, "horizon": 2.0}
    model = ConvSNODE(seed=seed, **{**defaults, **config}).to(dtype)
    return _scaled(model, 2 * scale)


def _scaled(model: Model, factor: float) -> Model:
    with torch.no_grad():
        model.weight.mul_(factor)
        model.bias.mul_(factor)
    return model.eval()
