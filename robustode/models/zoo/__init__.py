"""The models that come with RobustODE: the .safetensors checkpoints in this folder, named `zoo:STEM`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from robustode.errors import ModelError, unknown

SUFFIX = ".safetensors"


def zoo_names() -> tuple[str, ...]:
    """Return the names of the bundled models, sorted."""
    names = (entry.name for entry in files(__name__).iterdir() if entry.is_file())
    return tuple(sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)))


@contextmanager
def zoo_file(name: str) -> Iterator[Path]:
    """Give the path of a bundled model's checkpoint, for as long as the context lasts.

    Raises:
        ModelError: there is no model of that name.
    """
    if name not in zoo_names():
        raise unknown("zoo model", name, zoo_names(), ModelError)
    with as_file(files(__name__) / f"{name}{SUFFIX}") as path:
        yield path
