"""Checks added to a run that has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from robustode.audit.run import audit_of
from robustode.evaluation.again import check_models, protocol_again
from robustode.evaluation.plan import make_plan
from robustode.evaluation.rundir import RunDir, read_run
from robustode.evaluation.runner import Listener, examine_again


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
    protocol = protocol_again(run.meta, f"protocol of run '{run.path}'", models=models)
    plan = make_plan(protocol, data_root=data_root, device=device)
    check_models(plan, run.meta, "Name the right file with --model, in the order of the run's models.")
    audit = audit_of(plan, scope=scope, transfer=transfer)
    return examine_again(plan, Path(path), audit, listen=listen, publish=publish)
