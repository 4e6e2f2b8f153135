"""Schedules: the factor on a step in the course of a training."""

from __future__ import annotations

import math
from collections.abc import Callable

from robustode.errors import TrainingError, unknown


def constant(done: float) -> float:
    """1, whatever share of the mini-batches is done."""
    return 1.0


def cosine(done: float) -> float:
    """(1 + cos πs) / 2, s in [0, 1] the share of the mini-batches done. Source: Loshchilov and Hutter, ICLR 2017."""
    return (1 + math.cos(math.pi * done)) / 2


SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine}


def schedule(name: str) -> Callable[[float], float]:
    """Return the schedule of that name; raise `TrainingError` with the nearest name if there is none."""
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES, TrainingError)
    return SCHEDULES[name]
