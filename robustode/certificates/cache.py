"""What depends on a model's weights alone, computed once and kept as long as the model and its weights stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from robustode.certificates.problem import Problem
from robustode.models.fingerprint import model_hash

Value = TypeVar("Value")
_KEPT: WeakKeyDictionary[nn.Module, tuple[str, dict[str, object]]] = WeakKeyDictionary()


def remembered(problem: Problem, name: str, compute: Callable[[], Value]) -> Value:
    """Return what `compute` gives for the problem's model, from memory where its weights and configuration are as then.

    Args:
        problem: whose deployed model it is of.
        name: of the quantity; it must not depend on the samples.
        compute: called where nothing is remembered.
    """
    model = problem.deployed
    if not isinstance(model, nn.Module):
        return compute()
    now = f"{model_hash(model)} {problem.x.device}"
    kept = _KEPT.get(model)
    if kept is None or kept[0] != now:
        kept = _KEPT[model] = (now, {})
    if name not in kept[1]:
        kept[1][name] = compute()
    return kept[1][name]  # type: ignore[return-value]
