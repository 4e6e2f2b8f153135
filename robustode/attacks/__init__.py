"""Adversarial attacks: one protocol, one result, cards that name attacks, adapters for other libraries."""
