"""Any `torch.nn.Module` as a classifier that knows its bounds, classes and input shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustode.errors import ModelError
from robustode.models.base import parameters_like
from robustode.models.normalise import Statistic, normalisation
from robustode.models.output import check_logits, describe, select
from robustode.models.registry import is_own


class WrappedModel(nn.Module):
    """A user's module as a classifier: logits = select(module((x − mean) / std)); made by `wrap`, which checks it.

    Attributes:
        module: the user's module, unchanged.
        bounds, classes, input_shape: as in `Classifier`; bounds are those of the raw input, before normalisation.
        mean, std: buffers that broadcast against a sample, or None.
        output: the choice of `robustode.models.output`, or None.
        notes: what was done on loading, one sentence each.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        module: nn.Module,
        *,
        bounds: tuple[float, float],
        classes: int,
        input_shape: tuple[int, ...],
        statistics: tuple[Tensor, Tensor] | None = None,
        output: str | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.bounds, self.classes, self.input_shape, self.output = bounds, classes, input_shape, output
        self.notes: tuple[str, ...] = ()
        device, dtype = parameters_like(module)
        for name, value in zip(("mean", "std"), statistics or (None, None), strict=True):
            self.register_buffer(name, None if value is None else value.to(device, dtype))

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `wrap` that this model was made with; the classes are found anew."""
        names = ("bounds", "input_shape", "mean", "std", "output")
        return {name: getattr(self, name) for name in names}

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) for raw inputs (batch, *input_shape)."""
        if self.mean is not None and self.std is not None:
            x = (x - self.mean) / self.std
        return select(self.module(x), self.output)


def wrap(
    module: nn.Module,
    *,
    bounds: Sequence[float] | None = None,
    classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    mean: Statistic | None = None,
    std: Statistic | None = None,
    output: str | None = None,
    sample: Tensor | None = None,
) -> nn.Module:
    """Return `module` as a classifier: (batch, *input_shape) in `bounds` to logits (batch, classes), in eval mode.

    RobustODE's own models pass through as they are; a `WrappedModel` passes through, or is wrapped anew with the given
    arguments in place of its own, so that normalisation is applied exactly once. The module itself is used, not a copy.

    Args:
        module: any module; its attributes `bounds`, `classes` and `input_shape` are used where no argument is given.
        bounds: (lo, hi) of the raw input.
        classes: number of classes to expect; found by a forward pass if None.
        input_shape: shape of one sample; that of `sample` if None.
        mean, std: normalisation put in front, one value or one per channel; 0 and 1 where only the other is given.
        output: which part of the output holds the logits, as in `robustode.models.output`.
        sample: one sample (1, *input_shape) for the forward pass; random values inside the bounds if None.

    Raises:
        ModelError: something is missing or does not fit, or the output is not logits.
    """
    if not isinstance(module, nn.Module):
        raise ModelError("model", expected="a torch.nn.Module", got=type(module).__name__)
    options = {"bounds": bounds, "classes": classes, "input_shape": input_shape, "mean": mean, "std": std}
    given = {name: value for name, value in {**options, "output": output}.items() if value is not None}
    if is_own(module):
        refuse(list(given), f"{type(module).__name__} model")
    if is_own(module) or (isinstance(module, WrappedModel) and not given):
        return module.eval()
    if isinstance(module, WrappedModel):
        return wrap(module.module, sample=sample, **{**module.settings, **given})
    who = type(module).__name__
    box = _bounds(bounds if bounds is not None else getattr(module, "bounds", None), who)
    shape = _shape(input_shape if input_shape is not None else getattr(module, "input_shape", None), sample, who)
    statistics = _statistics(mean, std, shape)
    wrapped = WrappedModel(module, bounds=box, classes=0, input_shape=shape, statistics=statistics, output=output)
    wrapped.classes = _count_classes(wrapped.eval(), sample, who)
    declared = classes if classes is not None else getattr(module, "classes", None)
    if isinstance(declared, int) and declared != wrapped.classes:
        raise ModelError(f"output of {who}", expected=f"{declared} classes", got=f"{wrapped.classes} logits per sample")
    return wrapped


def refuse(given: Sequence[str], what: str) -> None:
    """Raise `ModelError` if options meant for a user's module were given with a model that carries its own."""
    if given:
        raise ModelError(
            f"options for a {what}",
            expected="none: it carries its own bounds, classes, input shape and encoding",
            got=", ".join(given),
            fix=f"Leave out {', '.join('--' + name.replace('_', '-') for name in given)}.",
        )


def _bounds(bounds: Any, who: str) -> tuple[float, float]:
    fix = "Give bounds=(lo, hi), on the command line --bounds LO,HI: the range of the raw inputs, (0, 1) for images."
    if bounds is None:
        raise ModelError(f"bounds of {who} are not known", fix=fix)
    try:
        lo, hi = (float(value) for value in bounds)
    except (TypeError, ValueError):
        raise ModelError(f"bounds of {who}", expected="two numbers lo < hi", got=repr(bounds), fix=fix) from None
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise ModelError(f"bounds of {who}", expected="finite lo < hi", got=f"({lo:g}, {hi:g})", fix=fix)
    return lo, hi


def _shape(input_shape: Any, sample: Tensor | None, who: str) -> tuple[int, ...]:
    if input_shape is None and sample is None:
        fix = "Give input_shape, on the command line --input-shape C,H,W, or the data."
        raise ModelError(f"input shape of {who} is not known", fix=fix)
    if sample is not None and (sample.dim() < 2 or len(sample) == 0):
        raise ModelError("sample", expected="shape (1, *input_shape)", got=tuple(sample.shape))
    if input_shape is None:
        return tuple(sample.shape[1:])  # type: ignore[union-attr]
    try:
        shape = tuple(int(size) for size in input_shape)
    except (TypeError, ValueError):
        shape = ()
    if not shape or min(shape) < 1:
        raise ModelError(f"input shape of {who}", expected="positive sizes such as (1, 28, 28)", got=repr(input_shape))
    if sample is not None and tuple(sample.shape[1:]) != shape:
        raise ModelError(f"input of {who}", expected=f"samples of shape {shape}", got=tuple(sample.shape[1:]))
    return shape


def _statistics(mean: Statistic | None, std: Statistic | None, shape: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
    if mean is None and std is None:
        return None
    return normalisation(0.0 if mean is None else mean, 1.0 if std is None else std, shape)


@torch.no_grad()
def _count_classes(model: WrappedModel, sample: Tensor | None, who: str) -> int:
    """Return the number of classes found by a forward pass on one sample; a pass on two proves that batches work."""
    device, dtype = parameters_like(model)
    if sample is None:
        lo, hi = model.bounds
        draw = torch.rand(model.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        sample = (lo + (hi - lo) * draw)[None]
    x = sample[:1].detach().to(device, dtype)
    x = x if model.mean is None or model.std is None else (x - model.mean) / model.std
    with torch.random.fork_rng(devices=[]):
        classes = check_logits(_run(model.module, x, who), model.output, who=who)
        pair = select(_run(model.module, x.repeat(2, *[1] * (x.dim() - 1)), who), model.output)
    if not isinstance(pair, Tensor) or tuple(pair.shape) != (2, classes):
        fix = "Keep the batch on the first axis of the logits."
        raise ModelError(f"output of {who} for a batch of 2", expected=f"(2, {classes})", got=describe(pair), fix=fix)
    return classes


def _run(module: nn.Module, x: Tensor, who: str) -> Any:
    try:
        return module(x)
    except Exception as reason:
        raise ModelError(
            f"{who} fails on an input of shape {tuple(x.shape)}",
            got=f"{type(reason).__name__}: {reason}",
            fix="Check the input shape (--input-shape) and that the module takes one batch of inputs.",
        ) from reason
