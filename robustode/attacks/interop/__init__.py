"""The sensitivity attack for others' tools: a plain function, an attack of torchattacks and one of foolbox.

The two libraries are imported when their class is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from robustode.attacks.interop.function import sensitivity_attack

if TYPE_CHECKING:
    from robustode.attacks.interop.foolbox import FoolboxSensitivity
    from robustode.attacks.interop.torchattacks import TorchattacksSensitivity

__all__ = ["FoolboxSensitivity", "TorchattacksSensitivity", "sensitivity_attack"]

_HOMES = {"FoolboxSensitivity": "foolbox", "TorchattacksSensitivity": "torchattacks"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
