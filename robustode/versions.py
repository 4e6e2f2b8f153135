"""Versions of Python and of the libraries that numbers depend on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("robustode", "torch", "numpy", "torchdiffeq", "torchode", "foolbox", "torchattacks")


def versions(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Return {name: version}, python first; "not installed" for one that is not (robustode run from a source tree)."""
    out = {"python": platform.python_version()}
    for name in names:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out
