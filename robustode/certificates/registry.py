"""All bounds by name, in the order in which equal ones are preferred."""

from __future__ import annotations

from robustode.certificates.affine import AFFINE
from robustode.certificates.bound import Bound

_ALL: tuple[Bound, ...] = (AFFINE,)
BOUNDS: dict[str, Bound] = {bound.name: bound for bound in _ALL}
