"""The configuration of an sNODE: everything that defines it except its weights."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robustode.solvers.activations import activation
from robustode.solvers.adaptive import AdaptiveSolver, chosen_solver


class SNODEConfig(BaseModel):
    """Everything that defines an sNODE except its weights.

    `rtol`, `atol` and `backend` belong to the adaptive methods, which do not use `steps`; see `AdaptiveSolver`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_shape: tuple[int, ...]
    classes: int = Field(ge=2)
    horizon: float = Field(default=3.0, gt=0, allow_inf_nan=False)
    steps: int = Field(default=30, ge=1)
    knots: int = Field(ge=1)
    activation: str = "tanh"
    method: str = "euler"
    rtol: float | None = None
    atol: float | None = None
    backend: str | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    background: float = 0.0
    foreground: float = -1.0

    @property
    def features(self) -> int:
        """Dimension of the state: the number of input coordinates."""
        return math.prod(self.input_shape)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight at one depth; the bias has as many components as the weight has rows."""
        return (self.features, self.features)

    @property
    def solver(self) -> AdaptiveSolver | None:
        """The adaptive solver; None for a fixed-step method."""
        return chosen_solver(self.method, self.rtol, self.atol, self.backend)

    @model_validator(mode="after")
    def _check(self) -> SNODEConfig:
        activation(self.activation)
        if (solver := self.solver) is not None:  # what is deployed stands in the checkpoint, defaults included
            for name in ("rtol", "atol", "backend"):
                object.__setattr__(self, name, getattr(solver, name))
        if not self.input_shape or min(self.input_shape) < 1:
            raise ValueError(f"input_shape: expected positive sizes, got {self.input_shape}")
        if self.steps < self.knots:
            raise ValueError(f"steps: expected at least as many steps as knots ({self.knots}), got {self.steps}")
        self.check_state()
        if not self.bounds[0] < self.bounds[1] or self.background == self.foreground:
            raise ValueError("bounds: expected lo < hi, and a background other than the foreground")
        return self

    @property
    def inverse_spread(self) -> float:
        """One over the standard deviation of the initial weights."""
        return self.features

    def check_state(self) -> None:
        """Raise `ValueError` unless the state has room for the classes."""
        if self.features < self.classes:
            raise ValueError(
                f"classes: the logits are the first components of the state, so expected at most {self.features} "
                f"(the input coordinates), got {self.classes}"
            )
