"""RobustODE: how far must an input move before the answer changes?

Adversarial robustness of continuous-depth classifiers (sNODE: a whole network as one ODE with depth-varying weights)
and of any `torch.nn.Module`. Symbols used throughout:

| paper | code | meaning | shape |
| --- | --- | --- | --- |
| x(t) | `x` | state; x(0) is the encoded input | (batch, features) |
| W(t) | `weight` | depth-varying weights on a knot grid of [0, T] | (knots, features, features) |
| b(t) | `bias` | depth-varying bias on the same grid | (knots, features) |
| T, h, N | `horizon`, `step`, `steps` | final depth, h = T/N | |
| a = W x + b | `pre` | pre-activation | (batch, features) |
| ξ(t) | `tangent` | sensitivity solution | (batch, features) |
| λ(t) | `adjoint` | adjoint solution | (batch, features) or (batch, k, features) |
| P | `jacobian` | ∂x(T)/∂x(0), rows of the classes | (batch, classes, features) |
| δ, ε | `delta`, `eps` | perturbation, budget | |

Source: Jaroudi et al., Standalone Neural ODEs with Sensitivity Analysis, arXiv 2205.13933.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustode import attacks, audit, certificates, data, sensitivity, training, uncertainty
    from robustode.api import evaluate, run_protocol
    from robustode.data import load_data
    from robustode.errors import RobustODEError
    from robustode.models import load_model, save_checkpoint, wrap

__version__ = "0.1.0"

# Public names and where they are; loaded on first use, so that the command line starts without importing torch.
_NAMES = {
    "RobustODEError": "robustode.errors",
    "evaluate": "robustode.api",
    "load_data": "robustode.data",
    "load_model": "robustode.models",
    "run_protocol": "robustode.api",
    "save_checkpoint": "robustode.models",
    "wrap": "robustode.models",
}
_MODULES = ("attacks", "audit", "certificates", "data", "sensitivity", "training", "uncertainty")

__all__ = [
    "RobustODEError",
    "attacks",
    "audit",
    "certificates",
    "data",
    "evaluate",
    "load_data",
    "load_model",
    "run_protocol",
    "save_checkpoint",
    "sensitivity",
    "training",
    "uncertainty",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"robustode.{name}")
    raise AttributeError(f"module 'robustode' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
