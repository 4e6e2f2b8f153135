"""The checks, in the order of the table: each is one file with one `CHECK`."""

from __future__ import annotations

from robustode.audit.check import Check
from robustode.audit.checks import finite, solver_gradient, solver_reference

CHECKS: tuple[Check, ...] = (finite.CHECK, solver_reference.CHECK, solver_gradient.CHECK)
