"""The architectures that RobustODE itself can build from a checkpoint's header.

Each is an `nn.Module` with a class attribute `arch`, a property `config` (a JSON-able dict that includes `input_shape`,
`classes` and `bounds`) and a class method `from_config(config)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar, Protocol

from torch import nn

from robustode.errors import ModelError, unknown

ARCHITECTURES = {
    "snode": "robustode.models.snode:SNODE",
    "conv-snode": "robustode.models.conv_snode:ConvSNODE",
    "layered": "robustode.models.layered:Layered",
    "resnet": "robustode.models.resnet:ResNet",
}


class Architecture(Protocol):
    """What a class listed in `ARCHITECTURES` offers besides being an `nn.Module`."""

    arch: ClassVar[str]

    @property
    def config(self) -> dict[str, Any]: ...

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> nn.Module: ...


def architecture(name: str) -> type[Any]:
    """Return the class of an architecture ("snode", "conv-snode", "layered", "resnet"), imported only now.

    Raises:
        ModelError: the name is unknown.
    """
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES, ModelError)
    module, _, attribute = ARCHITECTURES[name].partition(":")
    return getattr(import_module(module), attribute)


def is_own(model: object) -> bool:
    """Return whether a model is an instance of one of RobustODE's architectures."""
    name = getattr(type(model), "arch", None)
    return isinstance(name, str) and name in ARCHITECTURES and isinstance(model, architecture(name))
