"""The models of a plan, loaded and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from robustode.data import Data
from robustode.errors import ModelError, ProtocolError
from robustode.evaluation.eot import Averaged
from robustode.evaluation.protocol import Protocol
from robustode.evaluation.selection import unique_names
from robustode.models import load_model, model_hash, peek
from robustode.models.base import parameters_like
from robustode.models.checkpoint import Header


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """A model of a plan, with what its checkpoint says of it.

    Attributes:
        label: name in the tables.
        spec: what it was asked for by; the class of a module object.
        options: what was said of it when it was asked for.
        module: classifier in eval mode on its device; the mean of several passes where the protocol says `eot`.
        arch: name of its architecture, or its class.
        hash: of its configuration and weights.
        header_accuracy: accuracy that its checkpoint records, or None.
        provenance: of its training; empty if unknown.
        notes: what was done to load it.
    """

    label: str
    spec: str
    options: dict[str, Any]
    module: Any
    arch: str
    hash: str
    header_accuracy: float | None
    provenance: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a model before it is loaded.

    Attributes:
        spec: name or module that `load_model` takes.
        label, header, data, accuracy: as `peek` returns them.
    """

    spec: Any
    label: str
    header: Header | None
    data: str | None
    accuracy: float | None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Bounds that the checkpoint or module has; None if it says nothing."""
        source = self.header if self.header is not None else self.spec
        bounds = getattr(source, "bounds", None)
        return None if bounds is None else (float(bounds[0]), float(bounds[1]))


def look_at(protocol: Protocol, modules: Sequence[nn.Module | None] | None) -> list[Known]:
    """Look at every model without loading it; a module object stands in place of an entry's name where there is one.

    Raises:
        ProtocolError: there is no model.
        ModelError: one that is not there.
    """
    if not protocol.models:
        fix = "Name them in the protocol, or with --model, which repeats."
        raise ProtocolError("models of the protocol", expected="at least one", got="none", fix=fix)
    given = [None] * len(protocol.models) if modules is None else list(modules)
    if len(given) != len(protocol.models):
        raise ModelError("modules", expected=f"one for each of {len(protocol.models)} entries", got=len(given))
    specs = [
        protocol.near(entry.model) if module is None else module
        for entry, module in zip(protocol.models, given, strict=True)
    ]
    known = []
    for number, spec in enumerate(specs):
        with protocol.blaming("models", number):
            known.append(Known(spec=spec, **peek(spec)))
    return known


def load_models(protocol: Protocol, known: Sequence[Known], data: Data, device: str) -> tuple[PlannedModel, ...]:
    """Load every model of a protocol; repeated labels become NAME, NAME#2, ...

    Raises:
        ModelError: one that cannot be loaded, or whose bounds or input shape are not those of the first.
    """
    entries = zip(protocol.models, known, strict=True)
    labels = unique_names([entry.label or facts.label for entry, facts in entries])
    models = []
    for number, (label, entry, facts) in enumerate(zip(labels, protocol.models, known, strict=True)):
        with protocol.blaming("models", number):
            module: Any = load_model(
                facts.spec, device=device, sample=data.x[:1], default_bounds=data.bounds, **entry.options()
            )
        inner = getattr(module, "module", module)
        models.append(
            PlannedModel(
                label=label,
                spec=type(inner).__name__ if isinstance(facts.spec, nn.Module) else entry.model,
                options=entry.options(),
                module=(module if protocol.eot is None else Averaged(module, protocol.eot)).eval(),
                arch=getattr(module, "arch", type(inner).__name__),
                hash=model_hash(module),
                header_accuracy=facts.accuracy,
                provenance=dict(facts.header.provenance) if facts.header is not None else {},
                notes=tuple(getattr(module, "notes", ())),
            )
        )
    _check_same_box(models)
    return tuple(models)


def _check_same_box(models: Sequence[PlannedModel]) -> None:
    """The models of a run share data and budgets."""
    first = models[0].module
    for model in models[1:]:
        other = model.module
        if tuple(other.bounds) != tuple(first.bounds) or tuple(other.input_shape) != tuple(first.input_shape):
            raise ModelError(
                f"model '{model.label}' beside '{models[0].label}'",
                expected=f"bounds {tuple(first.bounds)} and input shape {tuple(first.input_shape)}",
                got=f"{tuple(other.bounds)} and {tuple(other.input_shape)}",
                fix="Evaluate them in separate runs.",
            )


def samples_for(model: PlannedModel, data: Data, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Return (x, y) of some samples on the model's device and in its dtype."""
    device, dtype = parameters_like(model.module)
    return data.x[rows].to(device=device, dtype=dtype), data.y[rows].to(device)
