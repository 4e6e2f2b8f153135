"""From a protocol to a plan: data and models loaded and checked against each other, cards and budgets resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustode.data import CATALOGUE, Data, check_fits, default_budgets, load_data
from robustode.errors import DataError, OptionError, ProtocolError
from robustode.evaluation.budgets import check_radii
from robustode.evaluation.certified import LeftOut
from robustode.evaluation.planned import Known, PlannedModel, load_models, look_at, samples_for
from robustode.evaluation.protocol import Protocol, digest
from robustode.evaluation.searched import has_sweep
from robustode.evaluation.selection import Selection, fitting, resolved_attacks, select_attacks
from robustode.models.base import parameters_like

Budgets = dict[str, tuple[float, ...]]

FOLDER = "folder:"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is needed to run; nothing has been written yet.

    Attributes:
        protocol: as given.
        data: the samples.
        models: loaded, on their device.
        attacks: the attacks that run, and those that are skipped or not for these models.
        budgets: {norm: radii} of the norms of the attacks, in order of first use.
        certified: {norm: radii} of the norms of the certificates.
        smoothed: the same for certificates of the smoothed model: of L2, if there are any.
        left_out: {label of a model: {norm: {bound: why the model has none such}}}.
        hash: of data, subset, cards, budgets, seed, eot, shard size and a shorter search precision; not of the models.
    """

    protocol: Protocol
    data: Data
    models: tuple[PlannedModel, ...]
    attacks: Selection
    budgets: Budgets
    certified: Budgets
    smoothed: Budgets
    left_out: dict[str, LeftOut]
    hash: str


def make_plan(
    protocol: Protocol,
    *,
    data: Any = None,
    modules: Sequence[nn.Module | None] | None = None,
    data_root: str | Path | None = None,
    device: str = "cpu",
) -> Plan:
    """Resolve and check a protocol, before anything is computed or written.

    Args:
        protocol: what to evaluate.
        data: data object in place of `protocol.data`.
        modules: module objects in place of the models' names, one for each entry; None keeps the name.
        data_root: folder of the real image sets.
        device: where the models run.

    Raises:
        RobustODEError: whatever does not fit, of the class of what it concerns.
    """
    attacks = select_attacks(protocol)
    known = look_at(protocol, modules)
    samples = _load_data(protocol, data, known, data_root)
    models = load_models(protocol, known, samples, device)
    for model in models:
        check_fits(samples, model.module)
        _check_units(samples, model)
    if protocol.uncertainty is not None:
        some = slice(0, 1 if protocol.eot else 32)  # random answers differ in a batch and alone
        for model in models:
            with protocol.blaming("uncertainty"):
                protocol.uncertainty.check(model.module, samples_for(model, samples, some)[0])
    attacks = fitting(attacks, [(model.label, model.module) for model in models])
    for stored in attacks.stored:
        stored.check_made_from(samples)
    own = tuple(dict.fromkeys(attack.norm for attack in (*attacks.cards, *attacks.stored)))
    certified = _certified_norms(protocol, own, samples, models[0].module)
    smoothed = () if protocol.smoothing is None else ("l2",)
    radii = _budgets(protocol, own, (*certified, *smoothed), samples, models[0].module)
    budgets = {norm: radii[norm] for norm in own}
    return Plan(
        protocol=protocol,
        data=samples,
        models=models,
        attacks=attacks,
        budgets=budgets,
        certified={norm: radii[norm] for norm in certified},
        smoothed={norm: radii[norm] for norm in smoothed},
        left_out=_left_out(protocol, models, samples, certified),
        hash=_hash(protocol, attacks, budgets, samples),
    )


def check_search(plan: Plan) -> Plan:
    """Return a plan whose attacks can search here as its protocol says.

    It is not asked where attacks do not run: parts of a run are put together, and a run is audited anew, on machines
    without a GPU, too.

    Raises:
        OptionError: TF32 or CUDA graphs without a GPU, or a shorter precision of a model that is not in float32.
    """
    protocol = plan.protocol
    if protocol.cuda_graphs and not any(has_sweep(model.module) for model in plan.models):
        with protocol.blaming("cuda_graphs"):
            raise OptionError("CUDA graphs", expected="an sNODE on a fixed grid among the models", got="none")
    for model in plan.models:
        device, dtype = parameters_like(model.module)
        with protocol.blaming("search_precision"):
            if protocol.search_precision == "tf32" and device.type != "cuda":
                fix = "Add --device cuda, or take bfloat16."
                raise OptionError("search precision tf32", expected="device 'cuda'", got=f"device '{device}'", fix=fix)
            if protocol.search_precision != "full" and dtype != torch.float32:
                what, own = f"search precision of model '{model.label}'", str(dtype).removeprefix("torch.")
                raise OptionError(what, expected=f"full, as it computes in {own}", got=protocol.search_precision)
        with protocol.blaming("cuda_graphs"):
            if protocol.cuda_graphs and device.type != "cuda":
                fix = "Add --device cuda, or leave them out."
                raise OptionError("CUDA graphs", expected="device 'cuda'", got=f"device '{device}'", fix=fix)
    return plan


def _load_data(protocol: Protocol, given: Any, known: Sequence[Known], root: str | Path | None) -> Data:
    """Read the data given, named, or recorded by the checkpoints."""
    source = given
    if source is None:
        source = protocol.data or _recorded_data(known, protocol)
        source = source if source in CATALOGUE else protocol.near(source)
    bounds = None
    own_box = isinstance(source, str) and (source in CATALOGUE or source.startswith(FOLDER))
    if not isinstance(source, Data) and not own_box:
        candidates = [*(entry.bounds for entry in protocol.models), *(facts.bounds for facts in known)]
        bounds = next((box for box in candidates if box is not None), None)
    try:
        return load_data(
            source, split=protocol.split, limit=protocol.limit, seed=protocol.seed, root=root, bounds=bounds
        )
    except DataError as error:
        words = error.what.split()  # "limit for data ...", "unknown split", else it is about the source
        with protocol.blaming(next((key for key in ("limit", "split") if key in words[:2]), "data")):
            raise


def _check_units(data: Data, model: PlannedModel) -> None:
    """Raise `DataError` if a named set or folder, whose box is known, meets a model of another box."""
    known = data.name in CATALOGUE or data.name.startswith(FOLDER)
    box = tuple(float(bound) for bound in model.module.bounds)
    if known and data.bounds is not None and tuple(data.bounds) != box:
        fix = "Leave out --bounds, or save the data in the model's units (.npz)."
        what = f"data '{data.name}', which lie in [{data.bounds[0]:g}, {data.bounds[1]:g}]"
        raise DataError(
            what, expected=f"a model of these bounds ('{model.label}')", got=f"[{box[0]:g}, {box[1]:g}]", fix=fix
        )


def _recorded_data(known: Sequence[Known], protocol: Protocol) -> str:
    names = [facts.data for facts in known]
    distinct = sorted({name for name in names if name is not None})
    if len(distinct) == 1 and None not in names:
        return distinct[0]
    models = [entry.label or facts.label for entry, facts in zip(protocol.models, known, strict=True)]
    got = ", ".join(f"{model}: {name or 'none recorded'}" for model, name in zip(models, names, strict=True))
    fix = "Choose with --data, for example --data mnist."
    if len(distinct) > 1:
        raise DataError("the models name different data", expected="one data set for all", got=got, fix=fix)
    raise DataError("no data given", expected="--data, or checkpoints that record it", got=got, fix=fix)


def _certified_norms(protocol: Protocol, own: tuple[str, ...], data: Data, model: Any) -> tuple[str, ...]:
    """Norms of the certificates: those asked for, else those of the attacks, else those with default budgets."""
    if protocol.certificates is None:
        return ()
    default = default_budgets(data.name, tuple(model.bounds), data.x[0].numel())
    return protocol.certificates.norms or own or tuple(default)


def _left_out(
    protocol: Protocol, models: Sequence[PlannedModel], data: Data, norms: tuple[str, ...]
) -> dict[str, LeftOut]:
    """Ask every model which bounds it has; raise `OptionError`, which names it, where none or not those named."""
    out: dict[str, LeftOut] = {}
    if (entry := protocol.certificates) is not None:
        for model in models:
            with protocol.blaming("certificates"):
                try:
                    out[model.label] = entry.check(model.module, samples_for(model, data, slice(0, 32))[0], norms)
                except OptionError as error:
                    raise error.inside(f"model '{model.label}' ({model.arch})") from None
    return out


def _budgets(protocol: Protocol, own: tuple[str, ...], more: tuple[str, ...], data: Data, model: Any) -> Budgets:
    """Radii of the norms of the attacks, and of further ones of certificates."""
    norms = tuple(dict.fromkeys([*own, *more]))
    for norm in protocol.budgets:
        if norm not in norms:
            expected = (
                f"norms of the run ({', '.join(norms)})" if more else f"norms of the attacks ({', '.join(norms)})"
            )
            expected = expected if norms else "none, as there are no attacks"
            with protocol.blaming("budgets", norm):
                raise ProtocolError("budgets", expected=expected, got=f"'{norm}'")
    box, dimension = tuple(model.bounds), data.x[0].numel()
    default = default_budgets(data.name, box, dimension)
    out = {}
    for norm in norms:
        radii = protocol.budgets.get(norm) or default.get(norm)
        if not radii:
            fix = f"Give them: --eps {norm}=..."
            raise ProtocolError(f"budgets for norm {norm}", expected="radii", got="no default for it", fix=fix)
        with protocol.blaming("budgets", norm):
            check_radii(radii, norm, box, dimension)
        out[norm] = tuple(radii)
    return out


def _hash(protocol: Protocol, attacks: Selection, budgets: Budgets, data: Data) -> str:
    """What a record's numbers depend on, besides the model; titles and papers may be reworded."""
    words = ("title", "paper")
    cards = [{key: value for key, value in one.items() if key not in words} for one in resolved_attacks(attacks)]
    values = {
        "attacks": cards,
        "budgets": {norm: list(radii) for norm, radii in sorted(budgets.items())},
        "data": data.fingerprint,
        "split": data.split,
        "seed": protocol.seed,
        "shard": protocol.shard,
        "eot": protocol.eot,
        **({} if protocol.search_precision == "full" else {"search_precision": protocol.search_precision}),
    }
    return digest(values)
