"""Other solves of torchode: its controller is exchanged while it runs."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor


def tighter(solve: Any, tolerance: float) -> Any:
    """The solve at rtol = atol = `tolerance`."""

    def tight(self: Any, problem: Any, term: Any = None, dt0: Any = None, args: Any = None) -> Any:
        controller = self.step_size_controller
        kept = {name: getattr(controller, name) for name in ("rtol", "atol") if hasattr(controller, name)}
        try:
            for name, value in kept.items():
                setattr(controller, name, torch.full_like(value, tolerance) if isinstance(value, Tensor) else tolerance)
            return solve(self, problem, term, dt0, args)
        finally:
            for name, value in kept.items():
                setattr(controller, name, value)

    return tight


def frozen_steps(solve: Any, steps: int) -> Any:
    """The solve in equal steps of its own method, differentiated through them; a fixed-step one is left alone."""

    def fixed(self: Any, problem: Any, term: Any = None, dt0: Any = None, args: Any = None) -> Any:
        library: Any = importlib.import_module("torchode")
        if isinstance(self.step_size_controller, library.FixedStepController):
            return solve(self, problem, term, dt0, args)
        parts = 1 if problem.t_eval is None else max(problem.t_eval.shape[-1] - 1, 1)
        length = (problem.t_end - problem.t_start) / (steps * parts)
        kept = self.step_size_controller
        try:
            self.step_size_controller = library.FixedStepController()
            whole = library.AutoDiffAdjoint.solve if type(self).__name__ != "AutoDiffAdjoint" else solve
            return whole(self, problem, term, length, args)
        finally:
            self.step_size_controller = kept

    return fixed
