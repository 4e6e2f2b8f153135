"""Uncertainty of the weights: what is known of their noise, as a variance for every parameter."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustode.errors import OptionError
from robustode.models.snode import SNODE


class WeightNoise(ABC):
    """Independent noise of mean 0 on every weight and bias; it does not depend on the input noise."""

    @abstractmethod
    def variances(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the variance of the entries of each named parameter, float64 on the CPU.

        A number for all of them, or (n,) for the n slices along the first axis (the knots of an sNODE).

        Raises:
            OptionError: the model does not have what this noise is about.
        """

    def standard(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Return draws of mean 0 and variance 1: normal."""
        return torch.randn(shape, generator=generator)

    def draw(self, model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        """Return one draw of all noisy parameters, for `torch.func.functional_call`."""
        found = {}
        parameters = dict(model.named_parameters())
        for name, variance in self.variances(model).items():
            parameter = parameters[name].detach()
            scale = beside(variance.sqrt(), parameter).to(parameter)
            found[name] = parameter + scale * self.standard(parameter.shape, generator).to(parameter)
        return found


@dataclass(frozen=True, kw_only=True)
class IIDWeights(WeightNoise):
    """Noise N(0, σ²) on every weight and bias.

    Attributes:
        sigma: σ ≥ 0, in the units of the weights.
    """

    sigma: float

    def __post_init__(self) -> None:
        _check("sigma of the weights", self.sigma)

    def variances(self, model: nn.Module) -> dict[str, Tensor]:
        """Return σ² for each parameter."""
        return {name: torch.tensor(self.sigma**2, dtype=torch.float64) for name, _ in _parameters(model)}


@dataclass(frozen=True, kw_only=True)
class DepthWeights(WeightNoise):
    """Noise N(0, v_k) on every entry of W and b at the knot k of an sNODE, or in the layer k of its layered twin.

    Attributes:
        variance: v_k ≥ 0, one for each knot.
    """

    variance: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "variance", tuple(float(v) for v in self.variance))
        for value in self.variance:
            _check("variance of the weights", value)

    def variances(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the v_k for W and for b."""
        if not isinstance(model, SNODE):
            fix = "Use IIDWeights or int8() for another module."
            raise OptionError(
                "variance in depth", expected="an sNODE or layered model", got=type(model).__name__, fix=fix
            )
        if len(self.variance) != len(model.bias):
            expected = f"{len(model.bias)} variances, one for each knot"
            raise OptionError("variance in depth", expected=expected, got=len(self.variance))
        value = torch.tensor(self.variance, dtype=torch.float64)
        return {"weight": value, "bias": value}


@dataclass(frozen=True, kw_only=True)
class RoundedWeights(WeightNoise):
    """Rounding of every tensor of weights to 2ᵇ equidistant values from its smallest entry to its largest.

    The error is taken as uniform in ± step/2 and independent, of variance step²/12, with step = range / (2ᵇ − 1). Each
    parameter is one tensor; of an sNODE each knot of W and of b is one, as each layer is of another network (its twin
    then has the same steps). A tensor of equal entries has no error. Real
    rounding errs alike in weights that nearly agree, as those of dead inputs do: the size of the error is then right on
    average over samples and classes rather than for each.

    Attributes:
        bits: b, 1 to 32.

    Source: Widrow and Kollár, Quantization noise, 2008 (the uniform model).
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 32:
            raise OptionError("bits", expected="a whole number from 1 to 32", got=self.bits)

    def variances(self, model: nn.Module) -> dict[str, Tensor]:
        """Return step²/12 for each parameter, or knot of an sNODE."""
        found = {}
        for name, parameter in _parameters(model):
            rows = parameter.detach().to("cpu", torch.float64)
            rows = rows.flatten(1) if isinstance(model, SNODE) else rows.flatten()
            step = (rows.amax(-1) - rows.amin(-1)) / (2**self.bits - 1)
            found[name] = step.square() / 12
        return found

    def standard(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Return draws of mean 0 and variance 1: uniform in ±√3."""
        return (torch.rand(shape, generator=generator) * 2 - 1) * math.sqrt(3)


def int8() -> RoundedWeights:
    """Return the noise of rounding the weights to 8 bits."""
    return RoundedWeights(bits=8)


def beside(value: Tensor, parameter: Tensor) -> Tensor:
    """View a variance, () or (n,), so that it broadcasts against its parameter."""
    return value.reshape(value.shape + (1,) * (parameter.dim() - value.dim()))


def _parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    if not isinstance(model, nn.Module):
        raise OptionError("weight_cov", expected="a torch.nn.Module", got=type(model).__name__)
    found = [(name, parameter) for name, parameter in model.named_parameters() if parameter.numel()]
    if not found:
        raise OptionError("weight_cov", expected="a model with parameters", got=f"{type(model).__name__} without any")
    return found


def _check(name: str, value: float) -> None:
    if not value >= 0 or not math.isfinite(value):
        raise OptionError(name, expected="a finite number ≥ 0", got=value)
