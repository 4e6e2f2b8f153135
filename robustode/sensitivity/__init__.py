"""Derivatives of the logits: tangent, adjoint, Jacobian; fused for sNODE, plain autograd for any module."""

from robustode.sensitivity.adjoint import adjoint
from robustode.sensitivity.jacobian import jacobian
from robustode.sensitivity.linearise import Linearisation, linearise
from robustode.sensitivity.tangent import tangent, weight_tangent

__all__ = ["Linearisation", "adjoint", "jacobian", "linearise", "tangent", "weight_tangent"]
