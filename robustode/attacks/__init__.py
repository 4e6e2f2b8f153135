"""Adversarial attacks: one protocol, one result, cards that name attacks, adapters for other libraries."""

from robustode.attacks.base import Attack, AttackResult, Status
from robustode.attacks.direction import OneStepAttack, direction
from robustode.attacks.sensitivity import SensitivityAttack

__all__ = ["Attack", "AttackResult", "OneStepAttack", "SensitivityAttack", "Status", "direction"]
