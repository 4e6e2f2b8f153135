"""Versions of Python and of the libraries that numbers depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("robustode", "torch", "numpy", "torchdiffeq", "foolbox", "torchattacks")


def versions() -> dict[str, str]:
    """Return {name: version}; "not installed" for a library that is not there (robustode run from a source tree)."""
    out = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out
