"""`certify`: the better of all bounds, per sample and class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustode.certificates.bound import Bound, ClassRadii
from robustode.certificates.certificate import CERTIFIED, MISCLASSIFIED, NOTHING, Certificate
from robustode.certificates.problem import Problem, make_problem
from robustode.certificates.registry import BOUNDS
from robustode.errors import OptionError, unknown
from robustode.models.base import Classifier
from robustode.sensitivity.norms import check_norm

MAPS = ("discrete", "flow")


def certify(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l2",
    methods: Sequence[str] | None = None,
    certifies: str = "discrete",
) -> Certificate:
    """Return for every sample a radius within which no input has another answer.

    The radius is the least over the classes k ≠ y of the largest that a bound gives for z_y > z_k: the better of all
    bounds per sample and class. It speaks of valid inputs, those inside the model's bounds.

    Args:
        model: classifier.
        x: (batch, *input_shape).
        y: (batch,) int64, the labels; samples with another answer have radius 0.
        norm: "l1", "l2" or "linf".
        methods: names of `BOUNDS`; None takes all that the model allows, that are not `extra` and not `covered_by`
            another one that it takes, and where there are none, a `fallback`.
        certifies: "discrete", the deployed discrete map; "flow", the solution of the ODE.

    Raises:
        OptionError: an unknown norm, method or map, shapes that do not fit, or no method that the model allows (each is
            named with its reason).

    Source: the logarithmic norm: Söderlind, BIT 46 (2006); each bound names its own.
    """
    problem, chosen, left_out = _asked(model, x, y, norm, methods, certifies)
    with torch.no_grad():
        found = {bound.name: bound.radii(problem) for bound in chosen}
        right = model(x.to(next(iter(model.parameters()), x))).argmax(1) == problem.y  # type: ignore[attr-defined]
    return _joined(problem, found, right, certifies, left_out)


def left_out(
    model: Classifier,
    x: Tensor,
    *,
    norm: str = "l2",
    methods: Sequence[str] | None = None,
    certifies: str = "discrete",
) -> dict[str, str]:
    """Return {name of a bound: why `certify` would leave it out}, without computing any; arguments and errors are its.

    Args:
        x: (batch, *input_shape), of which one sample is looked at.
    """
    y = torch.zeros(min(1, len(x)), dtype=torch.int64)
    return _asked(model, x[:1], y, norm, methods, certifies)[2]


def _asked(
    model: Classifier, x: Tensor, y: Tensor, norm: str, methods: Sequence[str] | None, certifies: str
) -> tuple[Problem, list[Bound], dict[str, str]]:
    """Return the problem, the bounds to compute, and why the others are left out."""
    check_norm(norm)
    if certifies not in MAPS:
        raise unknown("map to certify", certifies, MAPS)
    _check_samples(model, x, y)
    problem = make_problem(model, x, y, norm)
    return problem, *_chosen(problem, methods, certifies)


def _chosen(problem: Problem, methods: Sequence[str] | None, certifies: str) -> tuple[list[Bound], dict[str, str]]:
    """Return the bounds to compute, and why the others are left out."""
    for name in methods or ():
        if name not in BOUNDS:
            raise unknown("method of certification", name, BOUNDS)
    asked = [b for b in BOUNDS.values() if (b.name in methods if methods is not None else not b.extra)]
    chosen, left_out = _allowed(asked, problem, certifies)
    if methods is None:
        names = {bound.name for bound in chosen}
        chosen = [bound for bound in chosen if names.isdisjoint(bound.covered_by)]
    if not chosen and methods is None:
        chosen, more = _allowed([bound for bound in BOUNDS.values() if bound.fallback], problem, certifies)
        left_out |= more
    if not chosen or (methods is not None and left_out):
        remaining = [b.name for b in BOUNDS.values() if _refused(b, problem, certifies) is None]
        raise OptionError(
            "certificate",
            expected="a model with the bounds " + ", ".join(methods or BOUNDS),
            got="; ".join(f"{name}: {reason}" for name, reason in left_out.items()),
            fix=f"Bounds that remain: {', '.join(remaining)}." if remaining else "Take randomised smoothing.",
        )
    return chosen, left_out


def _allowed(bounds: list[Bound], problem: Problem, certifies: str) -> tuple[list[Bound], dict[str, str]]:
    """Return the bounds that a model has, and why it has not the others."""
    reasons = {bound.name: _refused(bound, problem, certifies) for bound in bounds}
    chosen = [bound for bound in bounds if reasons[bound.name] is None]
    return chosen, {name: reason for name, reason in reasons.items() if reason is not None}


def _refused(bound: Bound, problem: Problem, certifies: str) -> str | None:
    if bound.certifies != certifies:
        return f"certifies the {bound.certifies} map"
    if problem.norm not in bound.norms:
        return f"takes {', '.join(bound.norms)}"
    return bound.refuses(problem)


def _joined(
    problem: Problem, found: dict[str, ClassRadii], right: Tensor, certifies: str, left_out: dict[str, str]
) -> Certificate:
    names = list(found)
    radii = torch.stack([part.radius for part in found.values()])  # (bounds, batch, classes)
    radii = torch.where(right[:, None], radii, 0.0).scatter(
        2, problem.y[None, :, None].expand(len(names), -1, 1), torch.inf
    )
    best, which = radii.max(0)
    radius, nearest = best.min(1)
    positive = radius > 0
    method = which.gather(1, nearest[:, None])[:, 0].tolist()
    status = (
        CERTIFIED if ok else NOTHING if correct else MISCLASSIFIED
        for ok, correct in zip(positive.tolist(), right.tolist(), strict=True)
    )
    return Certificate(
        radius=radius,
        class_radius=best,
        status=tuple(status),
        method=tuple(names[m] if ok else "" for m, ok in zip(method, positive.tolist(), strict=True)),
        nearest=torch.where(positive, nearest, -1),
        passes=torch.stack([part.passes for part in found.values()]).sum(0),
        norm=problem.norm,
        certifies=certifies,
        left_out=left_out,
    )


def _check_samples(model: Classifier, x: Tensor, y: Tensor) -> None:
    shape = tuple(model.input_shape)
    if tuple(x.shape[1:]) != shape or not x.is_floating_point():
        raise OptionError(
            "x", expected=f"floating-point samples (batch, {', '.join(map(str, shape))})", got=tuple(x.shape)
        )
    if not bool(x.isfinite().all()):
        raise OptionError("x", expected="finite values", got="NaN or infinity")
    if tuple(y.shape) != (len(x),) or y.is_floating_point() or not bool(((y >= 0) & (y < model.classes)).all()):
        raise OptionError("y", expected=f"{len(x)} labels from 0 to {model.classes - 1}", got=tuple(y.shape))
