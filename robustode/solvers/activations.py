"""Activations σ with σ' expressed through the value σ(a), so that a sweep stores one tensor per stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from robustode.errors import ModelError, unknown

LEAK = 0.01  # slope of leaky_relu and slrelu on the left
SMOOTHING = 0.1  # s: half of the width over which srelu and slrelu bend


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Every σ here is nondecreasing and continuous. Where it has a kink (at a = 0: relu, leaky_relu, elu) the slope is the
    one from the left, as in torch. A value that is NaN has the slope NaN.

    Attributes:
        name: the name used in configurations.
        apply: returns σ(a), for autograd.
        slope: returns σ'(a) from σ(a), as a new tensor.
        in_place: replaces a by σ(a), the same to the bit, where that is faster than copying it there.
        slope_in_place: replaces σ(a) by σ'(a), the same to the bit as `slope`, where that needs no other memory.
        nonnegative: whether σ ≥ 0 everywhere; then no component of x decreases in depth.
        smooth: whether σ is continuously differentiable.
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    in_place: Callable[[Tensor], Tensor] | None = None
    slope_in_place: Callable[[Tensor], Tensor] | None = None
    nonnegative: bool = False
    smooth: bool = True

    def apply_(self, a: Tensor) -> Tensor:
        """Replace the pre-activations a by σ(a), in place, and return them."""
        return a.copy_(self.apply(a)) if self.in_place is None else self.in_place(a)

    def slope_(self, value: Tensor) -> Tensor:
        """Return σ'(a) from σ(a), in the memory of `value` where that is possible; `value` is lost."""
        return self.slope(value) if self.slope_in_place is None else self.slope_in_place(value)

    @property
    def at_zero(self) -> float:
        """σ(0)."""
        return float(self.apply(torch.zeros((), dtype=torch.float64)))


def _tanh(a: Tensor) -> Tensor:
    # tanh a = 2 sigmoid(2a) − 1: in torch on CPU several times faster than tanh, with an absolute error of one
    # rounding.
    return torch.sigmoid(a * 2) * 2 - 1


@cache
def _constant(number: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((), number, dtype=dtype, device=device)


def _tanh_(a: Tensor) -> Tensor:
    s = a.add_(a).sigmoid_()
    return torch.add(_constant(-1.0, s.dtype, s.device), s, alpha=2, out=s)


def _tanh_slope(value: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.addcmul(_constant(1.0, value.dtype, value.device), value, value, value=-1, out=out)


def _tanh_slope_(value: Tensor) -> Tensor:
    return _tanh_slope(value, out=value)


def _sigmoid_slope(value: Tensor) -> Tensor:
    return torch.addcmul(value, value, value, value=-1)


def _sigmoid_slope_(value: Tensor) -> Tensor:
    return value.addcmul_(value, value, value=-1)


def _softplus(a: Tensor) -> Tensor:
    """log(1 + eᵃ) = −log sigmoid(−a), which overflows nowhere."""
    return -torch.nn.functional.logsigmoid(-a)


def _softplus_slope(value: Tensor) -> Tensor:
    return torch.expm1(value.neg()).neg_()


def _positive(value: Tensor) -> Tensor:
    """1 where the value is positive, 0 elsewhere; NaN stays."""
    return value.clamp(0, 1).ceil_()


def _leaky_relu(a: Tensor) -> Tensor:
    return torch.nn.functional.leaky_relu(a, LEAK)


def _leaky_relu_slope(value: Tensor) -> Tensor:
    return _positive(value).mul_(1 - LEAK).add_(LEAK)


def _srelu(a: Tensor) -> Tensor:
    """0 for a ≤ −s, (a + s)²/(4s) for |a| < s, a for a ≥ s."""
    return torch.where(a < SMOOTHING, (a + SMOOTHING).clamp(min=0).square() / (4 * SMOOTHING), a)


def _srelu_slope(value: Tensor) -> Tensor:
    """(a + s)/(2s) = √(σ/s) where srelu bends."""
    return value.div(SMOOTHING).sqrt_().clamp_(max=1)


def _slrelu(a: Tensor) -> Tensor:
    """LEAK a + (1 − LEAK) srelu(a)."""
    return torch.where(a < SMOOTHING, LEAK * a + (1 - LEAK) * _srelu(a), a)


def _slrelu_slope(value: Tensor) -> Tensor:
    """√(LEAK² + (1 − LEAK)(σ/s + LEAK)) where slrelu bends: the root of the quadratic that σ is in a + s."""
    square = value.div(SMOOTHING).add_(LEAK).mul_(1 - LEAK).add_(LEAK**2)
    return square.clamp_(LEAK**2, 1).sqrt_()


def _elu_slope(value: Tensor, alpha: float) -> Tensor:
    """α eᵃ = σ + α on the left."""
    return torch.where(value > 0, 1.0, (value + alpha).clamp_(min=0))


def _elu(name: str, alpha: float) -> Activation:
    """a for a > 0, α (eᵃ − 1) for a ≤ 0: continuously differentiable only with α = 1."""
    apply, slope = partial(torch.nn.functional.elu, alpha=alpha), partial(_elu_slope, alpha=alpha)
    return Activation(name, apply, slope, smooth=alpha == 1)


def _identity_slope(value: Tensor) -> Tensor:
    return torch.where(value.isnan(), value, 1.0)


_ALL = (
    Activation("tanh", _tanh, _tanh_slope, _tanh_, _tanh_slope_),
    Activation("sigmoid", torch.sigmoid, _sigmoid_slope, torch.Tensor.sigmoid_, _sigmoid_slope_, nonnegative=True),
    Activation("relu", torch.relu, _positive, torch.Tensor.relu_, nonnegative=True, smooth=False),
    Activation("leaky_relu", _leaky_relu, _leaky_relu_slope, smooth=False),
    Activation("srelu", _srelu, _srelu_slope, nonnegative=True),
    Activation("slrelu", _slrelu, _slrelu_slope),
    _elu("elu", 0.2),
    _elu("selu", 1.0),  # so the paper calls it; not the scaled function of torch.nn.SELU
    Activation("softplus", _softplus, _softplus_slope, nonnegative=True),
    Activation("identity", lambda a: a, _identity_slope, lambda a: a),
)
ACTIVATIONS: dict[str, Activation] = {activation.name: activation for activation in _ALL}


def activation(name: str) -> Activation:
    """Return the activation of that name; raise `ModelError` with the nearest name if there is none."""
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS, ModelError)
    return ACTIVATIONS[name]
