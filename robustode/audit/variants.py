"""Versions of one model that differ in the solver only, whose adversarials may carry over to it."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor

from robustode.errors import ModelError
from robustode.models.base import Classifier, parameters_like
from robustode.models.snode import SNODE
from robustode.solvers.observe import Observed, Replay, Replayed, observing

TIGHT = 1e-6  # in float32
FALLBACK = (TIGHT, 1e-5, 1e-4)  # in float32, the first that the model can be solved at
REFERENCE = 1e-9  # in float64
FROZEN = 32  # least number of steps of a frozen grid, over the solves of a model


def solves(model: Any, x: Tensor) -> list[Observed]:
    """Return the solves that a model does for a batch, without gradients."""
    with torch.no_grad(), observing() as seen:
        model(x)
    return seen


def probe(model: Any, rows: int = 2) -> Tensor:
    """Return random inputs of a model, (rows, *input_shape)."""
    device, dtype = parameters_like(model)
    lo, hi = model.bounds
    draw = torch.rand(rows, *model.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (lo + (hi - lo) * draw).to(device, dtype)


def frozen(seen: list[Observed]) -> Replay:
    """Return the frozen fine grid for the solves that were seen: rk4, four steps for each accepted one, at least 32.

    A solve that ends at an event has no grid beforehand: then tight tolerances, differentiated through the steps.
    """
    if any(one.event for one in seen):
        return Replay(tolerance=TIGHT, gradient="discrete")
    most = max(one.accepted / max(one.outputs - 1, 1) for one in seen)
    return Replay(method="rk4", steps=max(math.ceil(FROZEN / len(seen)), round(4 * most)), gradient="discrete")


def reference(model: Any, x: Tensor) -> Replayed | None:
    """Return the model with its adaptive solves at 1e-9 in float64; where it does not convert, at the tightest of
    1e-6, 1e-5, 1e-4 that float32 permits and that is not looser than the deployed tolerance; else None."""
    deployed = min((one.rtol for one in solves(model, x) if one.rtol is not None), default=math.inf)
    single = [(tolerance, False) for tolerance in FALLBACK if tolerance <= deployed]
    for tolerance, double in ((REFERENCE, True), *single):
        try:
            candidate = Replayed(model, Replay(tolerance=tolerance), double=double)
            with torch.no_grad():
                logits = candidate(x)
        except Exception:
            continue
        if bool(logits.isfinite().all()):
            return candidate
    return None


def solver_variants(model: Any) -> list[tuple[str, Classifier]]:
    """Return (name, classifier) of the versions of a model with another solver; [] for a model without a solve.

    Of adaptive solves: the frozen fine grid and tight tolerances. Of fixed grids, and of RobustODE's own fixed-step
    sNODEs: half and twice the steps.
    """
    inner = getattr(model, "model", model)  # behind an average over draws
    seen = solves(model, probe(model))
    own: list[tuple[str, Any]] = []
    if any(one.adaptive for one in seen):
        own.append(("frozen steps", Replayed(model, frozen(seen))))
        own.append(("tight tolerance", Replayed(model, Replay(tolerance=TIGHT, gradient="discrete"))))
    elif seen:
        own += [(f"{word} the steps", Replayed(model, Replay(refine=factor))) for word, factor in _FACTORS.items()]
    elif isinstance(inner, SNODE):
        grids = [steps for steps in (inner.steps // 2, 2 * inner.steps) if steps >= 1]
        with contextlib.suppress(ModelError):  # a layered network is its own map
            own += [(f"{steps} steps", inner.at_steps(steps)) for steps in grids]
    return own


_FACTORS = {"half": 0.5, "twice": 2}
