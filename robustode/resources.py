"""Where the shipped cards, suites and protocols are: package resources in a wheel, else the repository."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from robustode.errors import RobustODEError


def shipped(kind: str) -> Path:
    """Return the directory of the shipped "attacks" or "evaluations"."""
    package = Path(__file__).parent
    packed = package / "_protocols" / kind
    return packed if packed.is_dir() else package.parent / kind


def read_toml(path: Path, what: str, error: type[RobustODEError]) -> dict[str, Any]:
    """Read a TOML file; raise `error` with file, line and complaint if it is missing or cannot be parsed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{what} '{path}' cannot be read: {reason}") from None
    except tomllib.TOMLDecodeError as reason:
        raise error(f"{what} '{path}'", expected="valid TOML", got=str(reason)) from None
