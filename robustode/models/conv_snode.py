"""The convolutional standalone neural ODE: the state is an image of channels, the weights are kernels."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from robustode.models.snode import SNODE
from robustode.models.snode_config import SNODEConfig
from robustode.solvers.operators import Convolution, Operator


class ConvSNODEConfig(SNODEConfig):
    """Everything that defines a convolutional sNODE except its weights."""

    input_shape: tuple[int, int, int]
    steps: int = Field(default=8, ge=1)
    channels: int = Field(default=16, ge=1)
    kernel: int = Field(default=3, ge=1)
    patch: int = Field(default=1, ge=1)

    @field_validator("input_shape", mode="before")
    @classmethod
    def _images(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) != 3:
            raise ValueError(f"expected images (channels, height, width), got inputs of shape {tuple(value)}")
        return value

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("expected an odd size, so that the image keeps its own")
        return value

    @property
    def encoded(self) -> int:
        """Channels that the encoded image fills."""
        return self.input_shape[0] * self.patch**2

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the kernel at one depth."""
        return (self.channels, self.channels, self.kernel, self.kernel)

    @property
    def inverse_spread(self) -> float:
        """One over the standard deviation of the initial weights, 2 √fan-in."""
        return 2 * math.sqrt(self.channels * self.kernel**2)

    def check_state(self) -> None:
        """Raise `ValueError` unless the state has room for the image and the classes."""
        height, width = self.input_shape[1:]
        if height % self.patch or width % self.patch:
            raise ValueError(f"patch: expected a divisor of the image's {height}x{width}, got {self.patch}")
        if self.channels < max(self.classes, self.encoded):
            raise ValueError(
                f"channels: expected at least {max(self.classes, self.encoded)}, one for each class ({self.classes}) "
                f"and one for each of the encoded image ({self.encoded}), got {self.channels}"
            )


class ConvSNODE(SNODE):
    """A standalone neural ODE on images: x' = σ(K(t) * x + b(t)), logits = spatial means of the first channels of x(T).

    x(0) is the encoded image in the first channels and zero in the others (channel augmentation). There is no encoder
    and no decoder with weights: the network is its kernels K, (knots, channels, channels, s, s), and biases b, (knots,
    channels), piecewise linear in depth. With `patch` p > 1, each p × p patch of pixels becomes p² channels of one
    position (a permutation: no value is lost), and a step costs p² times less.

    `final_state` is the spatial mean of x(T), (batch, channels), so that the training cost reads as for the dense
    sNODE: logits are its first components, and y is one-hot over all channels.

    Args:
        input_shape: (channels, height, width) of one sample.
        classes: number of classes K, 2 ≤ K ≤ channels.
        channels: of the state, at least those of the encoded image, p² times the image's own.
        kernel: side s of the kernels, odd.
        patch: side p of the patches, a divisor of height and width.
        horizon, steps, knots, activation, method, bounds, background, foreground: as for `SNODE`.
        seed: seed of the initial weights: N(0, 1/(4 fan-in)) at integer depths, with fan-in s² · channels, a cubic
            spline between.

    Raises:
        ModelError: a value out of its range; every problem is named.

    Source: the sNODE of Jaroudi et al., arXiv 2205.13933, eq. (1), with a convolution for W; channel augmentation:
    Dupont et al., Augmented neural ODEs, arXiv 1904.01681.
    """

    arch: ClassVar[str] = "conv-snode"
    schema: ClassVar[type[SNODEConfig]] = ConvSNODEConfig
    operator: Operator = Convolution()
    _config: ConvSNODEConfig

    def lift(self, x: Tensor) -> Tensor:
        """Return images (batch, *input_shape) as the first channels of states, zeros in the others."""
        x = functional.pixel_unshuffle(x, self._config.patch)
        return functional.pad(x, (0, 0, 0, 0, 0, self._config.channels - x.shape[1]))

    def lift_transposed(self, state: Tensor) -> Tensor:
        """Return the first channels of states (..., *state) as images (..., *input_shape)."""
        return functional.pixel_shuffle(state[..., : self._config.encoded, :, :], self._config.patch)

    def read(self, state: Tensor) -> Tensor:
        """Return the spatial means of states (..., channels, height, width), (..., channels)."""
        return state.mean((-2, -1))

    def read_transposed(self, final: Tensor) -> Tensor:
        """Return the transpose of `read`: every channel's value, divided by the number of positions, at all of them."""
        height, width = (size // self._config.patch for size in self.input_shape[1:])
        return (final / (height * width))[..., None, None].expand(*final.shape, height, width)

    def extra_repr(self) -> str:
        """Configuration shown by `repr`."""
        c = self._config
        grid = f"T={c.horizon:g}, {self.solver or f'{c.steps} {c.method} steps'}, {c.knots} knots"
        return f"{c.channels} channels, {c.kernel}x{c.kernel}, {c.classes} classes, {c.activation}, {grid}"
