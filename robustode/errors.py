"""Every error that a user can cause, under one base class.

A message has three parts, always in this order: what was expected, what was got, what to do. The command line prints it
without a traceback and exits with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

LONG_LIST = 12  # names that an error lists in full


class RobustODEError(Exception):
    """An error caused by the input; `str(error)` is one complete message for the user.

    Args:
        what: the thing that is wrong, in a few words ("model file 'a.pt'").
        expected: what would have been accepted.
        got: what came instead.
        fix: what to do about it, one imperative sentence.
    """

    def __init__(self, what: str, *, expected: object = None, got: object = None, fix: str | None = None) -> None:
        self.what, self.expected, self.got, self.fix = what, expected, got, fix
        details = []
        if expected is not None:
            details.append(f"expected {expected}")
        if got is not None:
            details.append(f"got {got}")
        message = what if not details else f"{what}: {', '.join(details)}"
        super().__init__(message if not fix else f"{message}. {fix}")

    def inside(self, place: str) -> Self:
        """Return the error itself, with the place that it concerns ("a.toml, line 3") before its message."""
        self.what, self.args = f"{place}: {self.what}", (f"{place}: {self}",)
        return self


class ModelError(RobustODEError):
    """A model or checkpoint cannot be used as a classifier."""


class SolverError(RobustODEError):
    """An adaptive solver cannot finish, or does not know an option."""


class DataError(RobustODEError):
    """A data source is missing, malformed or does not fit the model."""


class AttackError(RobustODEError):
    """An attack, card or suite is unknown, or its parameters do not fit."""


class BudgetError(RobustODEError):
    """A perturbation budget is unreadable, not positive or ambiguous."""


class ProtocolError(RobustODEError):
    """A protocol file has unknown keys or contradictory values."""


class RunError(RobustODEError):
    """A run directory exists already, is incomplete, was changed, or cannot be compared."""


class TrainingError(RobustODEError):
    """Training cannot start or cannot go on."""


class OptionError(RobustODEError):
    """A value given to a function or on the command line is out of its range."""


class MissingDependency(RobustODEError):
    """An optional package is needed; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed", fix=f'Install it with: pip install "robustode[{extra}]"')
        self.package, self.extra = package, extra


def unknown(kind: str, name: str, names: Iterable[str], error: type[RobustODEError] = OptionError) -> RobustODEError:
    """Build the error for an unknown name, with the nearest known name suggested.

    Args:
        kind: what the name stands for ("suite", "attack", "device").
        name: what the user wrote.
        names: the names that exist.
        error: class of the error built.
    """
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    fix = f"Did you mean '{near[0]}'?" if near else None
    expected = f"one of {', '.join(known) or '(none)'}"
    if len(known) > LONG_LIST:
        some = f"'{near[0]}' or another" if near else f"one of {', '.join(known[:LONG_LIST])}, ..."
        expected = f"{some} ({len(known)} names)"
    return error(f"unknown {kind}", expected=expected, got=f"'{name}'", fix=fix)
