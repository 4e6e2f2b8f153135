"""What a run says of each sample: the smallest distance found, and whether the sample is robust at ε."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from robustode.attacks.norms import ball_tolerance
from robustode.evaluation.records import best_distance, rows


@dataclass(frozen=True, kw_only=True, eq=False)
class WorstCase:
    """The smallest distances of one model in one norm, over one attack or all of them, at any budget.

    Attributes:
        samples: (n,) indices in the full split, ascending.
        distance: (n,) 0 if the clean prediction is wrong, +inf if no adversarial was found.
        unknown: (n,) True where an attack raised or has no row: the distance is only an upper bound of what it found.
        bounds, dimension, norm: what the tolerance τ of the ball depends on.
    """

    samples: np.ndarray
    distance: np.ndarray
    unknown: np.ndarray
    bounds: tuple[float, float]
    dimension: int
    norm: str

    def robust(self, eps: float) -> np.ndarray:
        """(n,) bool: correctly classified and no distance ≤ ε + τ was found; monotone in ε by construction."""
        return self.distance > eps + ball_tolerance(eps, self.bounds, self.dimension, self.norm)

    def incomplete(self, eps: float) -> np.ndarray:
        """(n,) bool: nothing broke the sample at ε, but an attack raised on it: it is not known to be robust."""
        return self.unknown & self.robust(eps)


def worst_case(records: pd.DataFrame, model: Mapping[str, Any], norm: str, *, attack: str | None = None) -> WorstCase:
    """Gather the smallest distance per sample of a model.

    Args:
        records: validated records, all or some of a run's rows; a sample without a row for this model is unknown.
        model: its entry in run.json (`label`, `bounds`, `input_shape`).
        norm: the norm of the attacks taken.
        attack: one attack only. Samples that it skipped in a cascade have the distance that the earlier attacks found.
    """
    samples = np.unique(records["sample"].to_numpy())
    own = rows(records, model=model["label"], norm=norm)
    best = _by_sample(own, samples)
    if attack is not None:
        everything, best = best, _by_sample(rows(own, attack=attack), samples)
        skipped = best["skipped"] > 0
        best["distance"] = best["distance"].mask(skipped, np.minimum(best["distance"], everything["distance"]))
    return WorstCase(
        samples=samples,
        distance=best["distance"].fillna(math.inf).to_numpy(dtype=float),
        unknown=(best["errors"].isna() | (best["errors"] > 0)).to_numpy(dtype=bool),
        bounds=(float(model["bounds"][0]), float(model["bounds"][1])),
        dimension=math.prod(model["input_shape"]),
        norm=norm,
    )


def _by_sample(records: pd.DataFrame, samples: np.ndarray) -> pd.DataFrame:
    """Worst case per sample over the rows given, one row for every sample, null where there is none."""
    return best_distance(records, by=()).set_index("sample").reindex(samples)
