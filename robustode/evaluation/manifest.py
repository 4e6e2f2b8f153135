"""run.json: everything that a reader needs to know where a run's numbers come from."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from robustode.attacks.norms import ball_tolerance
from robustode.data import Data
from robustode.evaluation.clean import CleanAccuracy
from robustode.evaluation.plan import Plan
from robustode.evaluation.planned import PlannedModel
from robustode.evaluation.rundir import SCHEMA
from robustode.evaluation.selection import resolved_attacks
from robustode.models.base import parameters_like
from robustode.versions import versions


def manifest(plan: Plan, clean: Sequence[CleanAccuracy], command: str) -> dict[str, Any]:
    """Return run.json as it stands when a run begins: status "running", no errors, no files yet.

    Args:
        plan: what runs.
        clean: clean accuracies of its models; empty while they are not known.
        command: command line.
    """
    answers = list(clean) or [None] * len(plan.models)
    data, protocol = plan.data, plan.protocol
    model = plan.models[0].module
    dimension = data.x[0].numel()
    tolerances = {
        norm: {str(eps): ball_tolerance(eps, tuple(model.bounds), dimension, norm) for eps in radii}
        for norm, radii in plan.budgets.items()
    }
    return {
        "schema": SCHEMA,
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "running",
        "protocol": {
            **protocol.model_dump(mode="json", exclude={"attacks", "models", "budgets"}),
            "data": data.name,
            "split": data.split,
            "suite": protocol.attacks,
            "attacks": resolved_attacks(plan.attacks),
            "budgets": {norm: list(radii) for norm, radii in plan.budgets.items()},
        },
        "protocol_hash": plan.hash,
        "models": [_model(planned, known, plan) for planned, known in zip(plan.models, answers, strict=True)],
        "data": _data(data),
        "versions": versions(),
        "seeds": {"run": protocol.seed},
        "tolerances": tolerances,
        "machine": {
            "platform": platform.platform(),
            "device": str(parameters_like(model)[0]),
            "threads": torch.get_num_threads(),
        },
        "skipped": list(plan.attacks.skipped),
        "not_applicable": list(plan.attacks.unfit),
        "errors": [],
        "eot": protocol.eot,
        **_certificates(plan),
        "files": {},
    }


def _certificates(plan: Plan) -> dict[str, Any]:
    """Radii of the tables of certificates; nothing for a run without any."""
    radii = {"certified": plan.certified, "smoothed": plan.smoothed}
    return {key: {norm: list(eps) for norm, eps in of.items()} for key, of in radii.items() if of}


def _data(data: Data) -> dict[str, Any]:
    return {
        "name": data.name,
        "split": data.split,
        "n": len(data),
        "caption": data.caption,
        "fingerprint": data.fingerprint,
        "bounds": None if data.bounds is None else list(data.bounds),
        "classes": data.classes,
        "input_shape": list(data.x.shape[1:]),
    }


def _model(planned: PlannedModel, clean: CleanAccuracy | None, plan: Plan) -> dict[str, Any]:
    module = planned.module
    counts = {} if clean is None else {"clean_accuracy": clean.accuracy, "clean_correct": clean.correct, "n": clean.n}
    return {
        "label": planned.label,
        "spec": planned.spec,
        "options": planned.options,
        "hash": planned.hash,
        "arch": planned.arch,
        "parameters": sum(p.numel() for p in module.parameters()),
        "bounds": list(module.bounds),
        "classes": int(module.classes),
        "input_shape": list(module.input_shape),
        **counts,
        "notes": list(planned.notes),
        "provenance": planned.provenance,
        **({"left_out": plan.left_out[planned.label]} if planned.label in plan.left_out else {}),
    }
