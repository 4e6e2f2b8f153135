"""The checks, in the order of the table: each is one file with one `CHECK`."""

from __future__ import annotations

from robustode.audit.check import Check
from robustode.audit.checks import (
    batch_invariance,
    data,
    determinism,
    finite,
    gradient_fidelity,
    logits,
    monotone,
    noise,
    one_step,
    saturation,
    silent_success,
    solver_gradient,
    solver_reference,
    unbounded,
    validity,
    zero_gradient,
)

CHECKS: tuple[Check, ...] = (
    finite.CHECK,
    gradient_fidelity.CHECK,
    zero_gradient.CHECK,
    determinism.CHECK,
    batch_invariance.CHECK,
    logits.CHECK,
    saturation.CHECK,
    unbounded.CHECK,
    monotone.CHECK,
    one_step.CHECK,
    silent_success.CHECK,
    noise.CHECK,
    solver_reference.CHECK,
    solver_gradient.CHECK,
    data.CHECK,
    validity.CHECK,
)
