"""A small convolutional residual network, the baseline that everybody expects."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from robustode.errors import ModelError
from robustode.models.config import validated
from robustode.models.normalise import normalisation
from robustode.solvers.tape import filled


class ResNetConfig(BaseModel):
    """Everything that defines a `ResNet` except its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_shape: tuple[int, int, int]
    classes: int = Field(ge=2)
    width: int = Field(default=16, ge=1)
    blocks: tuple[int, ...] = (1, 1)
    bounds: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @field_validator("input_shape", mode="before")
    @classmethod
    def _images(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) != 3:
            raise ValueError(f"expected images (channels, height, width), got inputs of shape {tuple(value)}")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        lo, hi = self.bounds
        if min(self.input_shape) < 1:
            raise ValueError(f"input_shape: expected positive sizes (channels, height, width), got {self.input_shape}")
        if not self.blocks or min(self.blocks) < 1:
            raise ValueError(f"blocks: expected at least one block in each of one or more stages, got {self.blocks}")
        if 2 ** (len(self.blocks) - 1) > min(self.input_shape[1:]):
            raise ValueError(
                f"blocks: expected at most {1 + int(math.log2(min(self.input_shape[1:])))} stages for images of "
                f"{self.input_shape[1]}x{self.input_shape[2]}, each after the first halves them, got {len(self.blocks)}"
            )
        if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
            raise ValueError(f"bounds: expected finite lo < hi, got ({lo:g}, {hi:g})")
        return self


class ResidualBlock(nn.Module):
    """x ↦ relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))), 3×3 convolutions, the first with the stride."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        same = stride == 1 and channels_in == channels
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network for small images: 3×3 stem, stages of residual blocks, global average pooling, linear head.

    The input is normalised inside, so that attacks and budgets live in `bounds`. Each stage after the first halves the
    image and doubles the channels. The default has 20 thousand parameters for one channel and ten classes (80 kB).

    Args:
        input_shape: (channels, height, width) of one sample.
        classes: number of classes, at least 2.
        width: channels of the first stage, at least 1.
        blocks: number of blocks in each stage.
        bounds: (lo, hi) of valid inputs; `forward` does not check them.
        mean, std: normalisation, tuples of one value or one per channel; None takes `bounds` to [-1, 1].
        seed: seed of the initial weights (He normal; batch norm starts at the identity).

    Raises:
        ModelError: a value out of its range; every problem is named.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016, section 4.2.
    """

    arch: ClassVar[str] = "resnet"
    mean: Tensor
    std: Tensor

    def __init__(self, *, seed: int = 0, **config: Any) -> None:
        super().__init__()
        self._config = c = validated(ResNetConfig, config, what="resnet configuration")
        (lo, hi), channels = c.bounds, c.input_shape[0]
        centre = (lo + hi) / 2 if c.mean is None else c.mean
        mean, std = normalisation(centre, (hi - lo) / 2 if c.std is None else c.std, c.input_shape)
        self.register_buffer("mean", mean.to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("std", std.to(torch.get_default_dtype()), persistent=False)
        with torch.random.fork_rng(devices=[]):  # torch's own initial values, replaced below
            self.stem = nn.Sequential(
                nn.Conv2d(channels, c.width, 3, padding=1, bias=False), nn.BatchNorm2d(c.width), nn.ReLU()
            )
            stages, width_in = [], c.width
            for stage, count in enumerate(c.blocks):
                width = c.width * 2**stage
                for block in range(count):
                    stages.append(ResidualBlock(width_in, width, 2 if stage and not block else 1))
                    width_in = width
            self.stages = nn.Sequential(*stages)
            self.head = nn.Linear(width_in, c.classes)
        self.initialise(torch.Generator().manual_seed(seed))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights: He normal, zero bias; reset the batch norms."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ResNet:
        """Build the model that `config` describes, with weights to be loaded."""
        return cls(**config)

    @property
    def config(self) -> dict[str, Any]:
        """The JSON-able configuration that `from_config` takes."""
        return self._config.model_dump(mode="json")

    @property
    def bounds(self) -> tuple[float, float]:
        """(lo, hi) of valid inputs."""
        return self._config.bounds

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self._config.classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._config.input_shape

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (batch, classes), of inputs (batch, channels, height, width).

        Raises:
            ModelError: images of another shape; average pooling alone would let them through.
        """
        if tuple(x.shape[1:]) != self.input_shape:
            expected = f"shape (batch, {', '.join(map(str, self.input_shape))})"
            raise ModelError("input of resnet model", expected=expected, got=tuple(x.shape))
        if self.training:
            return self._logits(x)
        return self._logits(filled(x))[: len(x)]

    def _logits(self, x: Tensor) -> Tensor:
        features = self.stages(self.stem((x - self.mean) / self.std))
        return self.head(features.mean(dim=(2, 3)))
