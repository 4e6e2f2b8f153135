"""Attacks of other libraries, and the user's own, behind the `Attack` protocol of RobustODE."""

from robustode.attacks.adapters.foolbox import FoolboxAttack, build_foolbox
from robustode.attacks.adapters.python import PythonAttack, build_python
from robustode.attacks.adapters.torchattacks import TorchattacksAttack, build_torchattacks

__all__ = [
    "FoolboxAttack",
    "PythonAttack",
    "TorchattacksAttack",
    "build_foolbox",
    "build_python",
    "build_torchattacks",
]
