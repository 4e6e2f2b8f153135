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
    network: Any = model
    grids = [steps for steps in (network.steps // 2, 2 * network.steps) if steps >= 1]
    try:
        return [(f"{steps} steps", network.at_steps(steps)) for steps in grids]
    except ModelError:  # a layered network
        return []
