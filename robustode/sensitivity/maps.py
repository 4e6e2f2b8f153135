"""Sensitivity maps: which input coordinates and which depth carry the sensitivity of a sample's margin."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from robustode.errors import OptionError
from robustode.models.base import Classifier
from robustode.models.snode import SNODE
from robustode.sensitivity.along import AlongDepth, along_depth, samples_at_once
from robustode.sensitivity.jacobian import rows_at_once
from robustode.sensitivity.linearise import FusedLinearisation, linearise
from robustode.sensitivity.nearest import margin_gradient, nearest_class
from robustode.sensitivity.norms import check_norm, dual, steepest


@dataclass(frozen=True, kw_only=True, eq=False)
class SensitivityMap:
    """The margin of every sample, where in its input and at which depth it is sensitive.

    Attributes:
        norm: of perturbations of the input.
        logits: z, (batch, classes).
        own: the class c whose margin it is, (batch,).
        other: the class k that it is the margin to, (batch,): the nearest in the linear model, or the target.
        saliency: ∂(z_c − z_k)/∂x, (batch, *input_shape), in logits per unit of the input.
        delta: the direction that is followed along depth, (batch, *input_shape).
        along: sizes along depth; None where there is no depth to follow.
        reason: why `along` is None; None where it is not.
    """

    norm: str
    logits: Tensor
    own: Tensor
    other: Tensor
    saliency: Tensor
    delta: Tensor
    along: AlongDepth | None
    reason: str | None

    @property
    def margin(self) -> Tensor:
        """z_c − z_k, (batch,): negative where k is preferred to c."""
        return (self.logits.gather(1, self.own[:, None]) - self.logits.gather(1, self.other[:, None])).squeeze(1)

    @property
    def distance(self) -> Tensor:
        """Margin over the dual norm of its gradient, (batch,): how far the boundary is in the linear model.

        In the units of the input; negative on the wrong side, infinite or NaN where the gradient is zero.
        """
        return self.margin / dual(self.saliency.flatten(1), self.norm)


def maps(
    model: Classifier,
    x: Tensor,
    y: Tensor | None = None,
    *,
    norm: str = "l2",
    target: Tensor | None = None,
    delta: Tensor | None = None,
) -> SensitivityMap:
    """Return the saliency of every sample's margin and, for an sNODE, how a perturbation and the adjoint change in
    depth.

    The margin is z_c − z_k for the label c and the class k of smallest (z_c − z_k) / ‖P_c − P_k‖ in the dual norm. The
    direction is, unless given, the unit-norm step that lowers it fastest. Samples are taken in chunks, so that at most
    256 MiB of adjoints are kept; the result has sizes only.

    An adaptive solve has no depth grid that samples share, and other modules no depth: `along` is then None and
    `reason` says so. A fixed grid for an adaptive sNODE is `model.with_solver(method="rk4", steps=N)`.

    Args:
        model: classifier; for an sNODE on a fixed grid everything is exact for the discrete map.
        x: (batch, *input_shape).
        y: labels c, (batch,) int64; default the model's prediction.
        norm: "l2", "linf" or "l1".
        target: classes k in place of the nearest, (batch,) int64, different from c.
        delta: direction to follow in place of the margin's, shape of `x`, of any length; for example
            `ro.attacks.direction(model, x, kind="singular")`.

    Raises:
        BudgetError: an unknown norm.
        OptionError: no samples, `y`, `target` or `delta` that do not fit.

    Source: arXiv 2205.13933, sensitivity and adjoint problem.
    """
    check_norm(norm)
    if not len(x):
        raise OptionError("x", expected="at least one sample", got="none")
    for name, values in (("y", y), ("target", target)):
        _check_classes(name, values, len(x), model.classes)
    if delta is not None and delta.shape != x.shape:
        raise OptionError("delta", expected=f"shape {tuple(x.shape)}", got=tuple(delta.shape))
    size = rows_at_once(model, x)
    if isinstance(model, SNODE) and model.solver is None:
        model.check_shape(x)
        size = min(size, samples_at_once(model, x))
    parts = []
    for i in range(0, len(x), size):
        own, wanted, step = (None if values is None else values[i : i + size] for values in (y, target, delta))
        parts.append(_part(model, x[i : i + size], own, wanted, step, norm))
    return _joined(parts)


def _part(
    model: Classifier, x: Tensor, y: Tensor | None, target: Tensor | None, delta: Tensor | None, norm: str
) -> SensitivityMap:
    linear = linearise(model, x)
    logits = linear.logits
    eye = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
    rows = linear.vjp(eye.expand(len(x), -1, -1))
    own = logits.argmax(1) if y is None else y.to(logits.device)
    other = nearest_class(logits, rows, own, norm) if target is None else target.to(logits.device)
    if target is not None and bool((own == other).any()):
        got = f"the same in sample {int((own == other).nonzero()[0])}"
        raise OptionError("target", expected="a class other than the one whose margin it is", got=got)
    saliency = margin_gradient(rows, own, other)
    if delta is None:
        delta = -steepest(saliency, norm)
    along = None
    if isinstance(linear, FusedLinearisation) and isinstance(model, SNODE):
        along = along_depth(model, linear, x, delta, eye[own] - eye[other])
    return SensitivityMap(
        norm=norm,
        logits=logits,
        own=own,
        other=other,
        saliency=saliency,
        delta=delta,
        along=along,
        reason=_reason(model) if along is None else None,
    )


def _reason(model: Classifier) -> str:
    if not isinstance(model, SNODE):
        return f"{type(model).__name__} is no sNODE"
    return (
        f"its adaptive solver ({model.solver}) has no grid that samples share; take a fixed one, "
        "model.with_solver(method='rk4', steps=N) or robustode deploy --method rk4 --steps N"
    )


def _check_classes(name: str, values: Tensor | None, count: int, classes: int) -> None:
    if values is None:
        return
    if values.shape != (count,) or values.dtype != torch.int64:
        raise OptionError(name, expected=f"int64 of shape ({count},)", got=f"{values.dtype} {tuple(values.shape)}")
    low, high = (int(value) for value in torch.aminmax(values))
    if low < 0 or high >= classes:
        raise OptionError(name, expected=f"classes 0 to {classes - 1}", got=f"{low} to {high}")


def _joined(parts: list[SensitivityMap]) -> SensitivityMap:
    """Put the chunks of a batch together."""
    first = parts[0]
    if len(parts) == 1:
        return first
    names = ("logits", "own", "other", "saliency", "delta")
    values = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    along = None
    if first.along is not None:
        sizes = [field.name for field in fields(AlongDepth) if field.name != "depth"]
        joined = {name: torch.cat([getattr(part.along, name) for part in parts]) for name in sizes}
        along = AlongDepth(depth=first.along.depth, **joined)
    return SensitivityMap(norm=first.norm, along=along, reason=first.reason, **values)
