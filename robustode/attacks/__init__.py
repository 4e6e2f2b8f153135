"""Adversarial attacks: one protocol, one result, cards that name attacks, adapters for other libraries."""

from robustode.attacks.base import Attack, AttackResult, Status
from robustode.attacks.direction import OneStepAttack, direction
from robustode.attacks.every_class import EveryClass, to_every_class
from robustode.attacks.sensitivity import SensitivityAttack

__all__ = [
    "Attack",
    "AttackResult",
    "EveryClass",
    "OneStepAttack",
    "SensitivityAttack",
    "Status",
    "direction",
    "to_every_class",
]
