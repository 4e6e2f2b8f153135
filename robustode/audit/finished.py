"""Checks added to a run that has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from robustode.audit.run import audit_of
from robustode.data.place import SPLITS
from robustode.errors import ModelError
from robustode.evaluation.plan import make_plan
from robustode.evaluation.protocol import Protocol, build_protocol
from robustode.evaluation.rundir import RunDir, read_run
from robustode.evaluation.runner import Listener, examine_again

_ADDED = ("suite", "attacks", "budgets", "models", "data", "split", "audit", "transfer")


def audit_run(
    path: str | Path,
    *,
    scope: str = "full",
    models: Sequence[str] = (),
    transfer: Sequence[str] = (),
    data_root: str | Path | None = None,
    device: str = "cpu",
    listen: Listener | None = None,
    publish: Callable[[RunDir], object] | None = None,
) -> RunDir:
    """Audit a finished run: audit.json, records and stored adversarials are written anew with what the checks found.

    The attacks are not run again. Until all checks have ended the run stays as it was; an interrupted audit goes on
    with the same call.

    Args:
        path: run directory, with its shards/.
        scope: "full" or "cheap".
        models: where its models are now, in its order; empty if they are where they were.
        transfer: further models whose adversarials are tried on these.
        data_root, device, listen: as in `robustode.run_protocol`.
        publish: called with the audited run to write tables, figures and page anew.

    Raises:
        RunError: not a finished run, or one that was changed by hand.
        ModelError: a model that cannot be loaded, or is not the one of the run.
        RobustODEError: data or attacks that are no longer what they were.
    """
    run = read_run(path)
    protocol = _protocol(run, models)
    plan = make_plan(protocol, data_root=data_root, device=device)
    for planned, entry in zip(plan.models, run.meta["models"], strict=True):
        if planned.hash != entry["hash"]:
            raise ModelError(
                f"model '{planned.spec}'",
                expected=f"the weights that the run evaluated as '{entry['label']}' (hash {entry['hash']})",
                got=f"hash {planned.hash}",
                fix="Name the right file with --model, in the order of the run's models.",
            )
    audit = audit_of(plan, scope=scope, transfer=transfer)
    return examine_again(plan, Path(path), audit, listen=listen, publish=publish)


def _protocol(run: RunDir, models: Sequence[str]) -> Protocol:
    """The protocol of a run again, as its run.json has it."""
    meta, entries = run.meta["protocol"], run.meta["models"]
    if models and len(models) != len(entries):
        labels = ", ".join(entry["label"] for entry in entries)
        raise ModelError("models", expected=f"one for each of the run's ({labels})", got=len(models))
    specs = models or [entry["spec"] for entry in entries]
    values = {key: value for key, value in meta.items() if key in Protocol.model_fields and key not in _ADDED}
    return build_protocol(
        {
            **values,
            "models": [
                {"model": spec, "label": entry["label"], **entry.get("options", {})}
                for spec, entry in zip(specs, entries, strict=True)
            ],
            "data": meta["data"],
            "split": meta["split"] if meta["split"] in SPLITS else "test",  # "all": a source taken whole
            "attacks": meta["suite"],
            "budgets": {**run.meta.get("certified", {}), **run.meta.get("smoothed", {}), **meta["budgets"]},
        },
        f"protocol of run '{run.path}'",
    )
