"""All bounds by name, in the order in which equal ones are preferred."""

from __future__ import annotations

from robustode.certificates import affine, flow_bounds, tube
from robustode.certificates.bound import Bound
from robustode.certificates.propagate import AUTO_LIRPA, CROWN, IBP

_ALL: tuple[Bound, ...] = (affine.AFFINE, *tube.BOUNDS, *flow_bounds.BOUNDS, IBP, CROWN, AUTO_LIRPA)
BOUNDS: dict[str, Bound] = {bound.name: bound for bound in _ALL}
