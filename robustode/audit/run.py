"""The audit: all checks, or the cheap ones, on the models of a run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from robustode.attacks.adapters.rng import forked_rng
from robustode.attacks.card import Card
from robustode.audit.case import Case
from robustode.audit.check import Check
from robustode.audit.checks import CHECKS
from robustode.audit.finding import Finding
from robustode.data import CATALOGUE, Data, load_data
from robustode.errors import ModelError, OptionError, RobustODEError, unknown
from robustode.evaluation.engine import seed_of
from robustode.evaluation.examination import Answer, Beside
from robustode.evaluation.plan import Plan, make_plan
from robustode.evaluation.protocol import protocol_of
from robustode.evaluation.rows import Shard, Subject
from robustode.evaluation.runner import execute
from robustode.models import load_model
from robustode.models.base import Classifier, parameters_like

SCOPES = ("cheap", "full")
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What examines the models of a plan.

    Attributes:
        cards, budgets: of the plan.
        scope: "cheap" for the checks that every evaluation runs, "full" for all.
        transfer: (label, classifier) of other models.
        training: gives the training split, where it is known.
        checks: those that run, in order.
    """

    cards: tuple[Card, ...]
    budgets: Mapping[str, Sequence[float]]
    scope: str = "cheap"
    transfer: tuple[tuple[str, Classifier], ...] = ()
    training: Callable[[], Data | None] = lambda: None
    checks: tuple[Check, ...] = CHECKS
    _cases: dict[str, Case] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise unknown("audit", self.scope, SCOPES, OptionError)

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of the checks of this scope."""
        return tuple(check.id for check in self.checks if check.cheap or self.scope == "full")

    @property
    def facts(self) -> dict[str, Any]:
        """Schema, scope, and the adaptive attack, which is the user's own code."""
        adaptive = [card.name for card in self.cards if card.provider == "python"]
        others = [label for label, _ in self.transfer]
        return {
            "schema": SCHEMA,
            "scope": self.scope,
            "adaptive_attack": ", ".join(adaptive) or None,
            "transfer": others,
        }

    def examine(
        self,
        name: str,
        subject: Subject,
        parts: Sequence[Shard],
        records: pd.DataFrame,
        common: dict[str, Any],
        beside: Beside,
    ) -> Answer:
        """Run one check on one model."""
        case = self._cases.get(subject.label)
        if case is None:
            case = self._cases[subject.label] = Case(
                subject=subject,
                shard=joined(parts),
                records=records,
                cards=self.cards,
                budgets=self.budgets,
                common=common,
                transfer=self.transfer,
                training=self.training,
                full=self.scope == "full",
            )
        check = next(check for check in self.checks if check.id == name)
        draws = torch.Generator().manual_seed(seed_of(common["seed"], subject.hash, "audit", name))
        started = time.perf_counter()
        with forked_rng(draws):  # of a randomised model, too
            finding = check(replace(case, certificates=beside.certificates, audited=beside.audited))
        seconds = time.perf_counter() - started
        return Answer(finding=finding.as_json(), units=case.evidence.units(case, name), seconds=seconds)


def audit_of(plan: Plan, *, scope: str, transfer: Sequence[str] = ()) -> Audit:
    """Return the audit of a plan.

    Args:
        plan: what was run.
        scope: "cheap" or "full".
        transfer: further models, as `load_model` takes them; a checkpoint or factory of the same inputs and classes.

    Raises:
        OptionError: an unknown scope.
        ModelError: a model for transfer that cannot be loaded, or of other inputs or classes.
    """
    others = tuple((str(spec), _other(spec, plan)) for spec in transfer)
    training = partial(_training, plan.data)
    return Audit(cards=plan.attacks.cards, budgets=plan.budgets, scope=scope, transfer=others, training=training)


def _other(spec: str, plan: Plan) -> Any:
    own: Any = plan.models[0].module
    device, _ = parameters_like(own)
    other: Any = load_model(spec, device=str(device), sample=plan.data.x[:1], default_bounds=plan.data.bounds)
    facts = [(tuple(m.bounds), tuple(m.input_shape), m.classes) for m in (own, other)]
    if facts[0] != facts[1]:
        expected, got = (f"bounds {box}, input shape {shape} and {classes} classes" for box, shape, classes in facts)
        raise ModelError(
            f"model '{spec}' for transfer", expected=expected, got=got, fix="Name a model of the same task."
        )
    return other


def _training(data: Data) -> Data | None:
    """Return the training split of a catalogued data set; None for other data or where it is not at hand."""
    if data.name not in CATALOGUE or data.split == "train":
        return None
    try:
        return load_data(data.name, split="train")
    except RobustODEError:
        return None


def joined(parts: Sequence[Shard]) -> Shard:
    """Return several shards as one."""
    names = ("x", "y", "index", "clean_pred", "clean_margin")
    return Shard(number=0, **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def run(
    model: Any,
    data: Any = None,
    *,
    attacks: str = "standard",
    eps: Mapping[str, Sequence[float]] | None = None,
    scope: str = "full",
    checks: Sequence[str] = (),
    data_root: str | Path | None = None,
    device: str = "cpu",
    transfer: Sequence[str] = (),
    **options: Any,
) -> list[Finding]:
    """Attack classifiers, then ask every check whether the numbers are to be believed.

    Args:
        model, data, attacks, eps, data_root, device, options: as in `robustode.evaluate`.
        scope: "full" for every check, "cheap" for those that every evaluation runs.
        transfer: further models whose adversarials are tried on these.
        checks: ids of the checks wanted; empty for all of the scope.

    Returns:
        Findings with `.check .model .status .value .threshold .text .source .advice .samples`, in the order of the
        table, model by model.

    Raises:
        RobustODEError: anything that does not fit.
    """
    for name in checks:
        if name not in {check.id for check in CHECKS}:
            raise unknown("check", name, [check.id for check in CHECKS], OptionError)
    protocol, modules, given = protocol_of(model, data, attacks=attacks, eps=eps, **options)
    plan = make_plan(protocol, data=given, modules=modules, data_root=data_root, device=device)
    audit = audit_of(plan, scope=scope, transfer=transfer)
    if checks:
        audit = replace(audit, checks=tuple(check for check in CHECKS if check.id in checks))
    with tempfile.TemporaryDirectory(prefix="robustode-") as folder:
        finished = execute(plan, Path(folder) / "run", command="robustode.audit.run(...)", examine=audit)
    return [Finding.from_json(values) for values in (finished.audit or {})["findings"]]
