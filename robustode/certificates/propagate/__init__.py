"""Bound propagation: any network of known operations as a graph, with intervals and linear bounds through it.

A network is unrolled (`unroll`, the sNODE) or traced (`trace`, any module) into a `Graph` of affine maps, sums,
activations and max poolings. An `Encloser` bounds the margins over a ball, by intervals alone (IBP) or with linear
bounds carried back to the input from every activation (CROWN), always of all maps whose nodes are off by no more than
the `Roundoff` of the deployed model. A `Search` finds the largest radius at which a margin stays positive.
"""

from robustode.certificates.propagate.bounds import CROWN, IBP
from robustode.certificates.propagate.lirpa import AUTO_LIRPA

__all__ = ["AUTO_LIRPA", "CROWN", "IBP"]
