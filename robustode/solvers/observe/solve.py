"""What is seen of one solve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(kw_only=True)
class Observed:
    """One solve that a model did.

    Attributes:
        backend: "torchdiffeq" or "torchode".
        method: name of the solver.
        rtol: relative tolerance; None on a fixed grid.
        atol: absolute tolerance; None on a fixed grid.
        adaptive: whether the solver chooses its steps.
        adjoint: whether its gradient is that of the continuous adjoint.
        depths: (first, last) depth.
        outputs: number of output depths; 0 if it ends at an event.
        event: whether it ends where a function of the state is zero.
        batch: shape of the state.
        evaluations: of the right-hand side; of torchode the mean over samples.
        accepted: steps taken; of torchode the mean over samples.
        rejected: steps refused; of torchode the mean over samples.
        steps: (depth, state, length) of accepted steps, detached, where the backend says them.
        function: right-hand side f(t, x), for its Jacobian.
    """

    backend: str
    method: str
    rtol: float | None
    atol: float | None
    adaptive: bool
    adjoint: bool = False
    depths: tuple[float, float] = (0.0, 0.0)
    outputs: int = 0
    event: bool = False
    batch: tuple[int, ...] = ()
    evaluations: float = 0.0
    accepted: float = 0.0
    rejected: float = 0.0
    steps: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    function: Callable[..., Any] | None = None

    def stiffness(self, iterations: int = 8) -> float | None:
        """Return the largest h ‖∂f/∂x‖₂ over the accepted steps, for each sample alone; None where it is not known.

        The norm is found by power iteration on JᵀJ, from below. An explicit method of order 5 is stable up to about 3.
        """
        if not self.steps or self.function is None:
            return None
        every = max(1, len(self.steps) // 8)
        try:
            return max(float(h.abs() * _norm(self.function, t, x, iterations)) for t, x, h in self.steps[::every])
        except Exception:  # a right-hand side that cannot be differentiated twice
            return None


def _norm(function: Callable[..., Any], t: Tensor, x: Tensor, iterations: int) -> Tensor:
    """Return the largest ‖J‖₂ of any sample of the state (batch, ...)."""
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(x)
    flat = (len(x), -1) if x.dim() > 1 else (1, -1)

    def unit(w: Tensor) -> Tensor:
        size = w.reshape(flat).norm(dim=1).clamp_min(torch.finfo(w.dtype).tiny)
        return (w.reshape(flat) / size[:, None]).reshape(x.shape)

    v, gain = unit(v), x.new_zeros(())
    for _ in range(iterations):
        forward: Any = torch.autograd.functional.jvp(lambda state: function(t, state), x, v)[1]
        back: Any = torch.autograd.functional.vjp(lambda state: function(t, state), x, forward)[1]
        gain = forward.reshape(flat).norm(dim=1).max()
        v = unit(back)
    return gain
