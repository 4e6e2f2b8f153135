"""The result of `certify`: a radius for every sample, with the bound that gave it and its cost."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

CERTIFIED, MISCLASSIFIED, NOTHING = "certified", "misclassified", "nothing"


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """What `certify` found, one row for each sample.

    Attributes:
        radius: (batch,) float64, in raw-input units: no valid input (inside the bounds) strictly nearer than this, in
            the norm, has another answer. 0 where the clean answer is wrong or nothing is certified. It may be larger
            than any valid perturbation.
        class_radius: (batch, classes) float64, the same for each other class; inf in the column of the label.
        status: for each sample "certified", "misclassified" (the clean answer is not the label) or "nothing".
        method: for each sample the name of the bound that gave the radius, "" without one.
        nearest: (batch,) int64, the class that the radius is of, -1 without one.
        passes: (batch,) float64, cost in forward passes of one sample, all bounds together.
        norm: of the radii.
        certifies: "discrete" (the deployed discrete map) or "flow" (the solution of the ODE).
        left_out: {name of a bound: why the model has none such}.
    """

    radius: Tensor
    class_radius: Tensor
    status: tuple[str, ...]
    method: tuple[str, ...]
    nearest: Tensor
    passes: Tensor
    norm: str
    certifies: str
    left_out: dict[str, str]
