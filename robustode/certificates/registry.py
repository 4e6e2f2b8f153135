"""All bounds by name, in the order in which equal ones are preferred."""

from __future__ import annotations

from robustode.certificates.bound import Bound
from robustode.certificates.propagate import CROWN, IBP

_ALL: tuple[Bound, ...] = (IBP, CROWN)
BOUNDS: dict[str, Bound] = {bound.name: bound for bound in _ALL}
