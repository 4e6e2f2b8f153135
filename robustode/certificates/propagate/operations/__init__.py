"""What torch's operations do to symbols; importing this registers the rules."""

from robustode.certificates.propagate.operations import activations, arithmetic, layers, shapes
from robustode.certificates.propagate.symbol import RULES

__all__ = ["RULES", "activations", "arithmetic", "layers", "shapes"]
