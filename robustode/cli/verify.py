"""`robustode verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustode.cli import options
from robustode.cli.console import emit, percent, say, show_rows

if TYPE_CHECKING:
    from robustode.evaluation.rundir import RunDir
    from robustode.evaluation.verify import Verified


def verify_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run directory with stored adversarials.")],
    model: options.Model,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="LABEL", help="Model of the run to compare with, if the weights differ."),
    ] = None,
    arch: options.Arch = None,
    bounds: options.Bounds = None,
    classes: options.Classes = None,
    input_shape: options.InputShape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    normalise: options.Normalise = None,
    output: options.Output = None,
    device: options.Device = "cpu",
    dtype: options.DType = None,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Re-score the adversarials of a run.

    Exit status 1 if any no longer holds.

    Example: robustode verify runs/snode-digits-digits-standard --model zoo:snode-digits
    """
    from robustode.evaluation.rundir import read_run
    from robustode.evaluation.verify import verify
    from robustode.models import load_model, model_hash

    finished = read_run(run)
    facts = finished.meta["models"][0]
    if dtype is None:  # as the run had it, where that is no question
        known = {entry.get("options", {}).get("dtype") for entry in _entries(finished, label)}
        dtype = known.pop() if len(known) == 1 else None
    extra = options.module_options(arch, bounds, classes, input_shape, mean, std, normalise, output, dtype)
    import torch

    sample = torch.full((1, *facts["input_shape"]), float(facts["bounds"][0]))
    loaded = load_model(
        model, device=options.check_device(device), sample=sample, default_bounds=facts["bounds"], **extra
    )
    root = None if data_root is None else str(data_root)
    found = verify(finished, loaded, model_hash(loaded), label=label, data_root=root)
    if json_:
        emit(
            {
                "run": str(run),
                "model": found.label,
                "same_model": found.same_model,
                "points": found.points,
                "held": found.held,
                "pushed": found.pushed,
                "thin": found.thin,
                "largest_relative_change": found.worst,
                "robust_accuracy": found.frame.to_dict("records"),
            }
        )
    else:
        show_rows(*_table(found))
        for line in _lines(found):
            say(line)
    if found.held < found.points and found.same_model:
        raise typer.Exit(1)


def _entries(run: RunDir, label: str | None) -> list[dict[str, Any]]:
    """The models of a run: the one of a label, if there is one, or all."""
    entries: list[dict[str, Any]] = run.meta["models"]
    return [entry for entry in entries if entry["label"] == label] or entries


def _table(found: Verified) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Title, columns and rows."""
    from robustode.reporting.formatting import eps_label, norm_name

    rows = [
        (
            norm_name(r["norm"]),
            eps_label(r["eps"]) if r["eps"] else "clean",
            percent(r["claimed"]),
            percent(r["rescored"]),
            str(r["beyond"]) if r["eps"] else "",
        )
        for r in found.frame.to_dict("records")
    ]
    title = f"Robust accuracy of {found.label} from its stored adversarials alone"
    return title, ("norm", "ε", "claimed", "re-scored", "stored beyond ε"), rows


def _lines(found: Verified) -> list[str]:
    """What is said below the table."""
    lines = [f"{found.held} of {found.points} stored adversarials hold; largest change of a distance {found.worst:.1e}"]
    if not found.same_model:
        lines.insert(0, "The weights are not those that the run evaluated: this is a transfer of its adversarials.")
    if found.pushed:
        text = f"{found.pushed} were stored a little further out than found, to hold on other hardware"
        lines.append(f"{text}; 'stored beyond ε' counts those that crossed an ε by it.")
    if found.thin:
        lines.append(f"{found.thin} hold with a thinner margin than required, and may not hold on other hardware.")
    return lines
