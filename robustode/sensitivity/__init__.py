"""Derivatives of the logits: tangent, adjoint, Jacobian, maps; fused for sNODE, plain autograd for any module."""

from robustode.sensitivity.adjoint import adjoint
from robustode.sensitivity.along import AlongDepth
from robustode.sensitivity.jacobian import jacobian
from robustode.sensitivity.linearise import Linearisation, linearise
from robustode.sensitivity.maps import SensitivityMap, maps
from robustode.sensitivity.tangent import tangent, weight_tangent

__all__ = [
    "AlongDepth",
    "Linearisation",
    "SensitivityMap",
    "adjoint",
    "jacobian",
    "linearise",
    "maps",
    "tangent",
    "weight_tangent",
]
