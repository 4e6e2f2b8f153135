"""Affine normalisation in front of a user's module: x ↦ (x − mean) / std, one value or one per channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustode.errors import ModelError, unknown

Statistic = float | Sequence[float] | Tensor

PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def preset(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of a data set for inputs in [0, 1], the values in common use.

    Raises:
        ModelError: the name is unknown.
    """
    if name not in PRESETS:
        raise unknown("normalisation", name, PRESETS, ModelError)
    return PRESETS[name]


def normalisation(mean: Statistic, std: Statistic, input_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return (mean, std) as float64 tensors that broadcast against a sample.

    Args:
        mean: one value, or one per channel (first axis of `input_shape`).
        std: likewise, positive.
        input_shape: shape of one sample.

    Raises:
        ModelError: a length is neither 1 nor the number of channels, a value is not finite, a std is not positive.
    """
    means, stds = _values("mean", mean, input_shape), _values("std", std, input_shape)
    if not bool((stds > 0).all()):
        raise ModelError("normalisation std", expected="positive values", got=stds.flatten().tolist())
    return means, stds


def _values(name: str, values: Statistic, input_shape: Sequence[int]) -> Tensor:
    channels = input_shape[0]
    try:
        flat = torch.as_tensor(values, dtype=torch.float64).detach().cpu().flatten()
    except (TypeError, ValueError, RuntimeError):
        raise ModelError(f"normalisation {name}", expected="a number or one per channel", got=repr(values)) from None
    if len(flat) not in (1, channels):
        expected = f"1 value or {channels}, one per channel of {tuple(input_shape)}"
        raise ModelError(f"normalisation {name}", expected=expected, got=f"{len(flat)} values")
    if not bool(flat.isfinite().all()):
        raise ModelError(f"normalisation {name}", expected="finite values", got=flat.tolist())
    return flat.reshape(-1, *([1] * (len(input_shape) - 1)))
