"""The checks, in the order of the table: each is one file with one `CHECK`."""

from __future__ import annotations

from robustode.audit.check import Check
from robustode.audit.checks import (
    batch_invariance,
    black_box,
    certificate,
    data,
    determinism,
    finite,
    gradient_fidelity,
    logits,
    loss_diversity,
    monotone,
    more_effort,
    noise,
    one_step,
    plateau,
    saturation,
    silent_success,
    solver_gradient,
    solver_reference,
    transfer,
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
    more_effort.CHECK,
    plateau.CHECK,
    silent_success.CHECK,
    black_box.CHECK,
    noise.CHECK,
    transfer.CHECK,
    loss_diversity.CHECK,
    solver_reference.CHECK,
    solver_gradient.CHECK,
    data.CHECK,
    validity.CHECK,
    certificate.CHECK,
)
