"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from robustode.evaluation.clean import CleanAccuracy


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a run tells whoever watches it: `kind` is "clean", "skipped", "beside", "unit", "resumed", "memory",
    "check"."""

    kind: str
    model: str = ""
    text: str = ""
    done: int = 0
    total: int = 0
    clean: CleanAccuracy | None = None


Listener = Callable[[Event], None]
