"""The same network under other solvers: models whose adversarials may transfer to the one that is deployed."""

from __future__ import annotations

from typing import Any

from robustode.errors import ModelError
from robustode.models.base import Classifier
from robustode.models.snode import SNODE


def solver_variants(model: Any) -> list[tuple[str, Classifier]]:
    """Return (label, classifier) of a model re-discretised with half and with twice its steps; [] where it has none.

    Args:
        model: as deployed. Only an sNODE on a fixed grid has steps; a layered network is its own map.
    """
    if not isinstance(model, SNODE) or model.solver is not None:
        return []
    grids = [steps for steps in (model.steps // 2, 2 * model.steps) if steps >= 1]
    try:
        variants: list[tuple[str, Classifier]] = [(f"{steps} steps", model.at_steps(steps)) for steps in grids]
    except ModelError:
        return []
    return variants
