"""What the certificates of a run say of each sample: the certified radius, and whether the sample is certified at ε."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from robustode.attacks.norms import ball_tolerance
from robustode.certificates.certificate import MISCLASSIFIED
from robustode.evaluation.records import rows


@dataclass(frozen=True, kw_only=True, eq=False)
class CertifiedCase:
    """The certified radii of one model in one norm.

    Attributes:
        samples: (n,) indices in the full split, ascending.
        radius: (n,) certified radius, 0 where nothing is certified.
        right: (n,) bool, classified correctly.
        certifies: "discrete" or "flow", the map that is certified.
        bounds, dimension, norm: what the tolerance τ of the ball depends on.
    """

    samples: np.ndarray
    radius: np.ndarray
    right: np.ndarray
    certifies: str
    bounds: tuple[float, float]
    dimension: int
    norm: str

    def certified(self, eps: float) -> np.ndarray:
        """(n,) bool: the radius exceeds ε + τ, the tolerance of attacks, so that none can break the sample at ε."""
        return self.right & (self.radius > eps + ball_tolerance(eps, self.bounds, self.dimension, self.norm))


def certified_case(certificates: pd.DataFrame, model: Mapping[str, Any], norm: str) -> CertifiedCase:
    """Gather the certified radii of a model.

    Args:
        certificates: rows of `certificates.parquet`.
        model: its entry in run.json (`label`, `bounds`, `input_shape`).
        norm: of the radii.
    """
    own = rows(certificates, model=model["label"], norm=norm).sort_values("sample", kind="stable")
    return CertifiedCase(
        samples=own["sample"].to_numpy(),
        radius=own["radius"].to_numpy(dtype=float),
        right=(own["status"] != MISCLASSIFIED).to_numpy(dtype=bool),
        certifies=str(own["map"].iloc[0]),
        bounds=(float(model["bounds"][0]), float(model["bounds"][1])),
        dimension=math.prod(model["input_shape"]),
        norm=norm,
    )
