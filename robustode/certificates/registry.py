"""All bounds by name, in the order in which equal ones are preferred."""

from __future__ import annotations

from robustode.certificates import adjoint, affine, flow_bounds, tube
from robustode.certificates.bound import Bound
from robustode.certificates.propagate import AUTO_LIRPA, CROWN, IBP

_ALL: tuple[Bound, ...] = (affine.AFFINE, adjoint.ADJOINT, *tube.BOUNDS, IBP, CROWN, AUTO_LIRPA, *flow_bounds.BOUNDS)
BOUNDS: dict[str, Bound] = {bound.name: bound for bound in _ALL}
