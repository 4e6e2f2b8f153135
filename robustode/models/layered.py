"""The sNODE's own network with independent layers: the ResNet that the paper compares with."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from robustode.errors import ModelError
from robustode.models.snode import SNODE


class Layered(SNODE):
    """The layered twin (the paper's ResNet): x_{n+1} = x_n + h σ(W_n x_n + b_n) with independent W_n, logits = first
    components.

    It is the map of an `SNODE` with Euler and as many knots as steps, but its layers are drawn independently of each
    other, are trained by SGD or Adam, and are not samples of a path in depth: `at_steps` is refused.

    Args:
        steps: number of layers N; h = horizon / N. The other arguments are those of `SNODE`.
        seed: seed of the initial layers, each N(0, 1/features²).

    Source: Jaroudi et al., arXiv 2205.13933, section 5 (ResNet model).
    """

    arch: ClassVar[str] = "layered"

    def __init__(self, *, seed: int = 0, **config: Any) -> None:
        method, knots = config.get("method", "euler"), config.get("knots")
        if method != "euler" or knots not in (None, config.get("steps", 30)):
            raise ModelError("layered model", expected="method 'euler' and knots equal to steps", got=(method, knots))
        super().__init__(seed=seed, **config)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every layer independently from N(0, 1/features²)."""
        with torch.no_grad():
            for parameter in (self.weight, self.bias):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / self._config.features)

    def with_solver(self, **changes: Any) -> SNODE:
        """Refuse: independent layers are not a function of depth."""
        raise ModelError(
            "a layered model cannot be re-discretised", fix="Use an sNODE, whose weights are a path in depth."
        )
