"""Floating-point operations of one forward and one backward row of a classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from robustode.models.base import Classifier
from robustode.sensitivity.linearise import linearise
from robustode.solvers.tape import ROWS


def flops_per_row(model: Classifier, x: Tensor) -> tuple[float, float]:
    """Return the floating-point operations of a forward and of a backward row: those of matrix products and
    convolutions, a multiplication and an addition counted as two; NaN where none are seen.

    Args:
        model: classifier in eval mode.
        x: at least one sample, (batch, *input_shape), on the model's device.

    Source: the definitions of `torch.utils.flop_counter`.
    """
    rows = x[:1].expand(ROWS, *x.shape[1:]).clone()
    draws = ROWS * int(getattr(model, "draws", 1))
    found: list[Any] = []
    forward = _count(lambda: found.append(linearise(model, rows)))
    cotangent = torch.ones_like(found[0].logits)
    backward = _count(lambda: found[0].vjp(cotangent))
    return forward / draws, backward / draws


def _count(run: Callable[[], object]) -> float:
    in_place: dict[Any, Any] = {torch.ops.aten.addmm_: _product}  # of the fused sweep; torch counts addmm alone
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        run()
    return float(counter.get_total_flops()) or math.nan


def _product(into: torch.Size, left: torch.Size, right: torch.Size, **options: object) -> int:
    return 2 * left[0] * left[1] * right[1]
