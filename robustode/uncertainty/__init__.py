"""Uncertainty propagation: what noise in the input does to the logits and to the answer."""

from robustode.uncertainty.gaussian import Uncertainty
from robustode.uncertainty.montecarlo import noisy_accuracy
from robustode.uncertainty.propagate import propagate

__all__ = ["Uncertainty", "noisy_accuracy", "propagate"]
