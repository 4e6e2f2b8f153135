"""The user's own attack, a Python function, behind the `Attack` protocol."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustode.attacks.adapters.boundary import check_budget, judge, sandbox
from robustode.attacks.adapters.signature import accepted_parameters, check_parameters, takes_anything
from robustode.attacks.base import AttackResult, Randomness, check_inputs, one_generator
from robustode.attacks.norms import check_norm
from robustode.errors import AttackError
from robustode.models.base import Classifier
from robustode.models.factory import load_factory

_KEYWORDS = ("norm", "eps", "generator")
_SIGNATURE = "fn(model, x, y, *, norm, eps, generator, ...)"
_RESERVED = {
    **dict.fromkeys(("model", "x", "y", "target"), "It is given when the attack runs."),
    "norm": "The card's norm sets it.",
    "eps": "The budget sets it: give eps, in raw-input units.",
    "generator": "The run's seed sets it.",
}


@dataclass(frozen=True, kw_only=True)
class PythonAttack:
    """A function `fn(model, x, y, *, norm, eps, generator, **params) -> x_adv`; make it with `build_python`.

    It may return `(x_adv, success)` with success (batch,) bool, its own claim: the audit compares it with the judge.

    Attributes:
        spec: `python:FILE.py:fn` or `python:package.module:fn`.
        norm: norm of the ball, or of the distance it minimises.
        eps: radius of the ball, in raw-input units; None for a minimal-norm attack.
        params: the function's other keyword arguments.
        base: directory that a relative FILE.py starts from; the current directory if None.
    """

    spec: str
    norm: str
    eps: float | None
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    base: Path | None = None

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        generator: Randomness = None,
    ) -> AttackResult:
        """Attack x (batch, *input_shape) with labels y; the function gets `generator` (one seeded with 0 if None).

        Raises:
            AttackError: inputs that do not fit the model, a target for a function without a `target` argument, or a
                return value that is not a floating tensor of the shape of x (and bools, if it returns two).
        """
        check_inputs(model, x, y, target)
        function = _load(self.spec, self.base)
        options: dict[str, Any] = {"norm": self.norm, "eps": self.eps, **self.params}
        options["generator"] = one_generator(generator) or torch.Generator().manual_seed(0)
        if _takes(function, "target"):
            options["target"] = target
        elif target is not None:
            raise AttackError(f"attack {self.spec}", expected="an argument 'target'", got="a targeted run without it")
        with sandbox(model, generator):
            out = function(model, x.clone(), y.clone(), **options) if len(x) else x
            points, claimed = out if isinstance(out, tuple) and len(out) == 2 else (out, None)
            x_adv = _check_points(points, x, self.spec)
            claimed = None if claimed is None else _check_claims(claimed, x, self.spec)
            return judge(model, x, y, x_adv, norm=self.norm, eps=self.eps, target=target, claimed=claimed)


def build_python(
    spec: str,
    *,
    norm: str,
    eps: float | None,
    params: Mapping[str, Any],
    minimal: bool = False,
    base: Path | None = None,
) -> PythonAttack:
    """Build the adapter of a user's function and check its signature.

    Args:
        spec: `python:FILE.py:fn` or `python:package.module:fn`, with
            `fn(model, x, y, *, norm, eps, generator, **params) -> x_adv`, and `target=None` too if it can be targeted.
        norm: "l1", "l2" or "linf".
        eps: radius in raw-input units.
        params: the function's other keyword arguments.
        minimal: the function is called with `eps=None` and looks for the nearest adversarial.
        base: directory that a relative FILE.py starts from (that of the card); the current directory if None.

    Raises:
        AttackError: no such file or function, a signature without norm, eps or generator, unknown or missing
            parameters, or no radius.
        BudgetError: unknown norm, or a radius that is not positive and finite.
    """
    what, function = f"attack {spec}", _load(spec, base)
    lacking = [key for key in _KEYWORDS if not _takes(function, key)]
    if lacking:
        raise AttackError(
            f"signature of {what}",
            expected=_SIGNATURE,
            got=f"no argument {', '.join(lacking)}",
        )
    positional = dict.fromkeys(list(accepted_parameters(function))[:3], _RESERVED["model"])  # whatever their names
    check_parameters(function, params, what=what, reserved=positional | _RESERVED)
    try:
        inspect.signature(function).bind(None, None, None, norm=norm, eps=eps, generator=None, **params)
    except TypeError as reason:
        raise AttackError(f"signature of {what}", expected=_SIGNATURE, got=str(reason)) from reason
    eps = check_budget(what, eps, minimal=minimal, can_minimise=True, needs_eps=True)
    return PythonAttack(spec=spec, norm=check_norm(norm), eps=eps, params=dict(params), base=base)


def _load(spec: str, base: Path | None) -> Callable[..., Any]:
    return load_factory(spec, what="attack", error=AttackError, base=base)


def _takes(function: Callable[..., Any], key: str) -> bool:
    return key in accepted_parameters(function) or takes_anything(function)


def _check_points(points: Any, x: Tensor, spec: str) -> Tensor:
    expected = f"a floating tensor of shape {tuple(x.shape)}"
    if not isinstance(points, Tensor):
        raise AttackError(f"return value of attack {spec}", expected=expected, got=type(points).__name__)
    if points.shape != x.shape or not points.is_floating_point():
        raise AttackError(
            f"return value of attack {spec}", expected=expected, got=f"{points.dtype} {tuple(points.shape)}"
        )
    return points


def _check_claims(claimed: Any, x: Tensor, spec: str) -> Tensor:
    if not isinstance(claimed, Tensor) or claimed.shape != (len(x),) or claimed.dtype is not torch.bool:
        got = f"{claimed.dtype} {tuple(claimed.shape)}" if isinstance(claimed, Tensor) else type(claimed).__name__
        expected = f"bools of shape ({len(x)},)"
        raise AttackError(f"success that attack {spec} returns beside its points", expected=expected, got=got)
    return claimed
