"""The protocol of a run again, from its run.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustode.data.place import SPLITS
from robustode.errors import ModelError
from robustode.evaluation.plan import Plan
from robustode.evaluation.protocol import Protocol, build_protocol

_ADDED = ("suite", "attacks", "budgets", "models", "data", "split", "audit", "transfer")


def protocol_again(meta: Mapping[str, Any], what: str, *, models: Sequence[str] = (), audit: bool = False) -> Protocol:
    """Return the protocol that a run.json describes.

    Args:
        meta: run.json.
        what: names the protocol in messages.
        models: where its models are now, in its order; empty if they are where they were.
        audit: whether to take over its audit, too.

    Raises:
        ModelError: another number of models.
        ProtocolError: run.json was changed by hand.
    """
    said, entries = meta["protocol"], meta["models"]
    if models and len(models) != len(entries):
        labels = ", ".join(entry["label"] for entry in entries)
        raise ModelError("models", expected=f"one for each of the run's ({labels})", got=len(models))
    specs = models or [entry["spec"] for entry in entries]
    values = {key: value for key, value in said.items() if key in Protocol.model_fields and key not in _ADDED}
    values |= {key: said[key] for key in ("audit", "transfer")} if audit else {}
    return build_protocol(
        {
            **values,
            "models": [
                {"model": spec, "label": entry["label"], **entry.get("options", {})}
                for spec, entry in zip(specs, entries, strict=True)
            ],
            "data": said["data"],
            "split": said["split"] if said["split"] in SPLITS else "test",  # "all": a source taken whole
            "attacks": said["suite"],
            "budgets": {**meta.get("certified", {}), **meta.get("smoothed", {}), **said["budgets"]},
        },
        what,
    )


def check_models(plan: Plan, meta: Mapping[str, Any], fix: str) -> None:
    """Raise `ModelError` unless the models of a plan have the weights that a run.json records."""
    for planned, entry in zip(plan.models, meta["models"], strict=True):
        if planned.hash != entry["hash"]:
            raise ModelError(
                f"model '{planned.spec}'",
                expected=f"the weights that the run evaluated as '{entry['label']}' (hash {entry['hash']})",
                got=f"hash {planned.hash}",
                fix=fix,
            )
