"""Uncertainty propagation: what noise in the input and in the weights does to the logits and to the answer."""

from robustode.uncertainty.checked import CheckedUncertainty, disagreement
from robustode.uncertainty.covariance import LowRank
from robustode.uncertainty.draws import DrawnUncertainty
from robustode.uncertainty.gaussian import EffectiveMargin, LogitsAlongDepth, Uncertainty
from robustode.uncertainty.measures import Measures
from robustode.uncertainty.orthant import Probability
from robustode.uncertainty.propagate import METHODS, measure, propagate
from robustode.uncertainty.weights import DepthWeights, IIDWeights, RoundedWeights, WeightNoise, int8

__all__ = [
    "METHODS",
    "CheckedUncertainty",
    "DepthWeights",
    "DrawnUncertainty",
    "EffectiveMargin",
    "IIDWeights",
    "LogitsAlongDepth",
    "LowRank",
    "Measures",
    "Probability",
    "RoundedWeights",
    "Uncertainty",
    "WeightNoise",
    "disagreement",
    "int8",
    "measure",
    "propagate",
]
