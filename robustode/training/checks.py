"""What must hold before training starts: options in their ranges, data that the model can be trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from robustode.data.dataset import Data, check_bounds
from robustode.errors import TrainingError, unknown
from robustode.models.snode import SNODE
from robustode.solvers.operators import Dense
from robustode.training.cost import Cost

CHUNK = 1000  # samples encoded at a time
ROUNDING = 1e-6  # by which an encoded input may lie above its target


def check_number(
    name: str,
    value: object,
    *,
    whole: bool = False,
    least: float = 0.0,
    below: float = math.inf,
    positive: bool = False,
) -> None:
    """Raise `TrainingError` unless `value` is a (whole) number, least ≤ value < below, and > 0 if `positive`."""
    kinds = int if whole else (int, float)
    if isinstance(value, kinds) and not isinstance(value, bool) and least <= value < below and (value or not positive):
        return
    kind = "a whole number" if whole else "a finite number"
    lower = "> 0" if positive else f"≥ {least:g}"
    upper = "" if math.isinf(below) else f" and < {below:g}"
    raise TrainingError(f"training option {name}", expected=f"{kind} {lower}{upper}", got=repr(value))


def check_names(changes: Mapping[str, object], names: Iterable[str]) -> None:
    """Raise `TrainingError` with the nearest name for the first change that is not one of `names`."""
    known = set(names)
    for name in changes:
        if name not in known:
            raise unknown("training option", name, known, TrainingError)


def check_depth(model: nn.Module, cost: Cost) -> None:
    """Raise `TrainingError` if the cost speaks of depth (μ₃ to μ₅) and the model has none, or of matrices (μ₅)."""
    if cost.needs_depth and not isinstance(model, SNODE):
        expected, got = "an sNODE or layered model for mu3, mu4 or mu5", type(model).__name__
        raise TrainingError("cost", expected=expected, got=got, fix="Set mu3 = mu4 = mu5 = 0.")
    if cost.mu5 > 0 and not (isinstance(model, SNODE) and isinstance(model.operator, Dense)):
        got = f"{type(model).__name__}, whose weights are kernels"
        raise TrainingError("cost", expected="a dense sNODE or layered model for mu5", got=got, fix="Set mu5 = 0.")


def check_reachable(model: nn.Module, data: Data, cost: Cost) -> None:
    """Raise `TrainingError` if the mismatch (μ₁) asks an sNODE for what its activation cannot do.

    With σ ≥ 0 no component of x(t) decreases in depth, x' = σ(W x + b) ≥ 0: a component of the encoded input x(0) that
    lies above its target (one-hot over all components: 1 for the label's, 0 for the others) can never come to it.
    """
    if not (cost.mu1 > 0 and isinstance(model, SNODE) and model.flow.activation.nonnegative):
        return
    excess, start = max(
        _above_target(model, x, y) for x, y in zip(data.x.split(CHUNK), data.y.split(CHUNK), strict=True)
    )
    if excess > ROUNDING:
        name = model.flow.activation.name
        raise TrainingError(
            f"cost with mu1 > 0 and activation '{name}'",
            expected=f"encoded inputs at or below their one-hot targets ({name} is nonnegative: as x' = σ(W x + b) ≥ "
            "0, no component of the state can decrease in depth)",
            got=f"a component that starts at {start:g} with target {start - excess:g}",
            fix="Use tanh or another signed activation, an encoding with background and foreground ≤ 0, or mu1 = 0.",
        )


def _above_target(model: SNODE, x: Tensor, labels: Tensor) -> tuple[float, float]:
    """How far a component starts above its target, at most, and where it starts."""
    start = model.encode(x)
    excess = start.scatter_add(1, labels[:, None], start.new_full((len(start), 1), -1.0))
    worst = int(excess.argmax())
    return float(excess.flatten()[worst]), float(start.flatten()[worst])


def check_training_data(model: nn.Module, data: Data, batch: int) -> None:
    """Raise `TrainingError` or `DataError` unless `model` can be trained on `data` in mini-batches of `batch`."""
    check_samples(model, data)
    classes = torch.unique(data.y)
    if len(classes) < 2:
        got = f"only class {int(classes[0])}"
        raise TrainingError(f"data '{data.name}'", expected="samples of at least two classes", got=got)
    if batch > len(data):
        expected = f"at most the {len(data):,} samples of the data"
        fix = f"Set the batch to {len(data)} or less (robustode train ... --set batch={len(data)})."
        raise TrainingError("training option batch", expected=expected, got=batch, fix=fix)


def check_samples(model: nn.Module, data: Data) -> None:
    """Raise `TrainingError` or `DataError` unless the data have the model's input shape, classes and bounds."""
    what = f"data '{data.name}'"
    shape, classes, bounds = (getattr(model, name, None) for name in ("input_shape", "classes", "bounds"))
    if shape is not None and tuple(data.x.shape[1:]) != tuple(shape):
        raise TrainingError(what, expected=f"samples of shape {tuple(shape)}", got=tuple(data.x.shape[1:]))
    if not bool(torch.isfinite(data.x).all()):
        raise TrainingError(what, expected="finite inputs", got="NaN or infinity", fix="Remove or repair them.")
    if classes is not None and int(data.y.max()) >= classes:
        raise TrainingError(what, expected=f"labels 0 to {classes - 1}", got=f"label {int(data.y.max())}")
    if bounds is not None:
        check_bounds(data, bounds)
