"""The checks, in the order of the table: each is one file with one `CHECK`."""

from __future__ import annotations

from robustode.audit.check import Check
from robustode.audit.checks import (
    black_box,
    finite,
    loss_diversity,
    more_effort,
    plateau,
    solver_gradient,
    solver_reference,
    transfer,
)

CHECKS: tuple[Check, ...] = (
    finite.CHECK,
    more_effort.CHECK,
    plateau.CHECK,
    black_box.CHECK,
    transfer.CHECK,
    loss_diversity.CHECK,
    solver_reference.CHECK,
    solver_gradient.CHECK,
)
