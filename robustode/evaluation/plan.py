"""From a protocol to a plan: data and models loaded and checked against each other, cards and budgets resolved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from robustode.attacks.cards import Card, resolve
from robustode.data import CATALOGUE, Data, check_fits, default_budgets, load_data
from robustode.errors import DataError, MissingDependency, ModelError, ProtocolError
from robustode.evaluation.eot import Averaged
from robustode.evaluation.protocol import Protocol, digest
from robustode.evaluation.stored import Stored, read_stored
from robustode.models import load_model, model_hash, peek
from robustode.models.base import parameters_like


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """A model of a plan, with what its checkpoint says of it."""

    label: str
    spec: str
    module: Any
    hash: str
    header_accuracy: float | None
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is needed to run; nothing has been written yet.

    Attributes:
        protocol: as given.
        data: the samples.
        models: loaded, on their device.
        cards: attacks that can run, in order.
        stored: adversarial data sets named by `also`.
        skipped: [{attack, reason}] of cards whose library is missing.
        budgets: {norm: radii} of the norms in use.
        hash: of data, subset, cards, budgets, seed and shard size; models are not in it.
    """

    protocol: Protocol
    data: Data
    models: tuple[PlannedModel, ...]
    cards: tuple[Card, ...]
    stored: tuple[Stored, ...] = ()
    skipped: tuple[dict[str, str], ...] = ()
    budgets: dict[str, tuple[float, ...]] = field(default_factory=dict)
    hash: str = ""

    @property
    def norms(self) -> tuple[str, ...]:
        """Norms of the attacks, in order of first use."""
        return tuple(self.budgets)


def make_plan(
    protocol: Protocol,
    *,
    data: Any = None,
    modules: Sequence[nn.Module] | None = None,
    data_root: str | Path | None = None,
    device: str = "cpu",
) -> Plan:
    """Resolve and check a protocol, before anything is computed or written.

    Args:
        protocol: what to evaluate.
        data: data object in place of `protocol.data`.
        modules: module objects in place of the models' names, one for each entry.
        data_root: folder of the real image sets.
        device: where the models run.

    Raises:
        RobustODEError: whatever does not fit, of the class of what it concerns.
    """
    cards, stored, skipped = _attacks(protocol)
    specs: list[Any] = list(modules) if modules is not None else [entry.model for entry in protocol.models]
    known = [peek(spec) for spec in specs]
    source = data if data is not None else protocol.data or _recorded_data(known, protocol)
    samples = load_data(
        source,
        split=protocol.split,
        limit=protocol.limit,
        seed=protocol.seed,
        root=data_root,
        bounds=_known_bounds(protocol, source, known),
    )
    models = _load(protocol, specs, known, samples, device)
    check_same_box(models)
    for model in models:
        check_fits(samples, model.module)
    budgets = _budgets(protocol, (*cards, *stored), samples, models[0].module)
    resolved = _resolved(protocol, cards, stored, budgets, samples)
    return Plan(
        protocol=protocol,
        data=samples,
        models=models,
        cards=cards,
        stored=stored,
        skipped=skipped,
        budgets=budgets,
        hash=digest(resolved),
    )


def _known_bounds(protocol: Protocol, source: Any, known: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """Bounds for data that bring none of their own: those the user gave, else those of the first checkpoint."""
    if isinstance(source, Data) or source in CATALOGUE:
        return None
    given = [entry.bounds for entry in protocol.models if entry.bounds]
    recorded = [tuple(facts["header"].bounds) for facts in known if facts["header"] is not None]
    return next(iter([*given, *recorded]), None)


def _resolved(
    protocol: Protocol, cards: Sequence[Card], stored: tuple[Stored, ...], budgets: dict[str, Any], data: Data
) -> dict[str, Any]:
    return {
        "attacks": [card.resolved() for card in cards],
        "stored": [[one.name, one.norm, one.data.fingerprint] for one in stored],
        "budgets": {norm: list(radii) for norm, radii in budgets.items()},
        "data": data.fingerprint,
        "split": data.split,
        "seed": protocol.seed,
        "shard": protocol.shard,
        "eot": protocol.eot,
    }


def _attacks(protocol: Protocol) -> tuple[tuple[Card, ...], tuple[Stored, ...], tuple[dict[str, str], ...]]:
    base = Path(protocol.base) if protocol.base else None
    cards = resolve(protocol.attacks, norms=protocol.norms, params=_params_for(protocol, protocol.attacks), base=base)
    stored: list[Stored] = []
    for name in protocol.also:
        folder = Path(name)
        if folder.is_dir():
            stored.append(read_stored(folder))
        else:
            cards += resolve(name, norms=protocol.norms, params=_params_for(protocol, name), base=base)
    cards = list({card.name: card for card in cards}.values())
    usable, skipped = [], []
    for card in cards:
        try:
            card.build(0.1 if card.kind == "budget" else None)
            usable.append(card)
        except MissingDependency as error:
            skipped.append({"attack": card.name, "reason": f"not installed ({error.library})"})
    if cards and not usable:
        raise MissingDependency(*_first_missing(cards))
    return tuple(usable), tuple(stored), tuple(skipped)


def _first_missing(cards: Sequence[Card]) -> tuple[str, str]:
    for card in cards:
        try:
            card.build(0.1 if card.kind == "budget" else None)
        except MissingDependency as error:
            return error.library, error.extra
    raise ProtocolError("no attack of the suite can run")


def _params_for(protocol: Protocol, name: str) -> dict[str, Any] | None:
    """Parameters go to the one shorthand there is: an implementation named by `attacks` or `also`."""
    shorthand = ":" in name or name in ("sensitivity", "one-step")
    if protocol.params and not shorthand and not any(":" in other for other in (protocol.attacks, *protocol.also)):
        return protocol.params  # resolve() refuses them with its own message
    return protocol.params if shorthand else None


def _recorded_data(known: Sequence[dict[str, Any]], protocol: Protocol) -> str:
    names = {entry.model: k["data"] for entry, k in zip(protocol.models, known, strict=True)}
    distinct = sorted({name for name in names.values() if name is not None})
    if len(distinct) == 1 and None not in names.values():
        return distinct[0]
    listing = ", ".join(f"{model}: {name or 'none recorded'}" for model, name in names.items())
    fix = "Choose with --data, for example --data mnist."
    if len(distinct) > 1:
        raise DataError("the models name different data", expected="one data set for all", got=listing, fix=fix)
    raise DataError("no data given", expected="--data, or checkpoints that record it", got=listing, fix=fix)


def _load(
    protocol: Protocol, specs: Sequence[Any], known: Sequence[dict[str, Any]], data: Data, device: str
) -> tuple[PlannedModel, ...]:
    used: Counter[str] = Counter()
    models = []
    for entry, spec, facts in zip(protocol.models, specs, known, strict=True):
        name = entry.label or facts["label"]
        used[name] += 1
        label = name if used[name] == 1 else f"{name}#{used[name]}"
        module = load_model(spec, device=device, sample=data.x[:1], default_bounds=data.bounds, **entry.options())
        module.eval()
        header = facts["header"]
        hashed = model_hash(module)
        models.append(
            PlannedModel(
                label=label,
                spec=str(spec) if not isinstance(spec, nn.Module) else type(spec).__name__,
                module=module if protocol.eot is None else Averaged(module, protocol.eot),  # type: ignore[arg-type]
                hash=hashed,
                header_accuracy=facts["accuracy"],
                provenance=dict(header.provenance) if header is not None else {},
                notes=tuple(getattr(module, "notes", ())),
            )
        )
    return tuple(models)


def check_same_box(models: Sequence[PlannedModel]) -> None:
    """Raise `ModelError` unless all models have the same bounds and input shape: they share data and budgets."""
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


def _budgets(
    protocol: Protocol, attacks: Sequence[Card | Stored], data: Data, model: Any
) -> dict[str, tuple[float, ...]]:
    norms = tuple(dict.fromkeys(attack.norm for attack in attacks))
    for norm in protocol.budgets:
        if norm not in norms and norms:
            raise ProtocolError("budgets", expected=f"norms of the attacks ({', '.join(norms)})", got=f"'{norm}'")
    dimension = data.x[0].numel()
    default = default_budgets(data.name, tuple(model.bounds), dimension)
    out = {}
    for norm in norms:
        radii = protocol.budgets.get(norm) or default.get(norm)
        if not radii:
            fix = f"Give them: --eps {norm}=..."
            raise ProtocolError(f"budgets for norm {norm}", expected="radii", got="no default for it", fix=fix)
        out[norm] = tuple(radii)
    return out


def to_device(plan: Plan, model: PlannedModel, start: int, stop: int) -> tuple[Any, Any]:
    """Return (x, y) of the samples start..stop on the model's device and in its dtype."""
    device, dtype = parameters_like(model.module)
    return plan.data.x[start:stop].to(device=device, dtype=dtype), plan.data.y[start:stop].to(device)
