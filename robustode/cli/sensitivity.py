"""`robustode sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustode.cli import options
from robustode.cli.console import emit, say, show_note, show_rows
from robustode.cli.evaluate import command_line

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from robustode.data import Data
    from robustode.sensitivity import SensitivityMap

DIRECTIONS = ("margin", "singular")
SHOWN = 4  # samples that are drawn if neither --sample nor --limit is given


def sensitivity_command(
    model: options.Model,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Figure: .svg, .png or .pdf.")],
    data: options.Data = None,
    sample: Annotated[
        list[int] | None,
        typer.Option("--sample", metavar="N", help="Sample by its index in the split, from 0. Repeats."),
    ] = None,
    limit: options.Limit = None,
    split: options.Split = "test",
    norm: Annotated[str, typer.Option("--norm", metavar="NORM", help="l2, linf or l1.")] = "l2",
    direction: Annotated[
        str,
        typer.Option(
            "--direction", metavar="KIND", help="Followed in depth: margin, or singular (moves the logits most)."
        ),
    ] = "margin",
    target: Annotated[
        int | None, typer.Option("--target", metavar="K", help="Class of the margin in place of the nearest.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="The curves, one row for each sample and depth.")
    ] = None,
    arch: options.Arch = None,
    bounds: options.Bounds = None,
    classes: options.Classes = None,
    input_shape: options.InputShape = None,
    mean: options.Mean = None,
    std: options.Std = None,
    normalise: options.Normalise = None,
    output: options.Output = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.DType = None,
    force: options.Force = False,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Draw which inputs and depths are sensitive.

    A row for each sample: the input, the gradient of the margin, and how perturbations grow along depth.

    Example: robustode sensitivity --model zoo:snode-digits --sample 3 --sample 7 --out maps.svg
    """
    from robustode.attacks.direction import direction as follow
    from robustode.evaluation.plan import make_plan
    from robustode.evaluation.planned import samples_for
    from robustode.evaluation.protocol import build_protocol
    from robustode.files import write_text
    from robustode.reporting.maps import sensitivity_plot
    from robustode.reporting.maps_rows import depth_rows, sample_rows
    from robustode.reporting.plot import write_plot
    from robustode.sensitivity import maps

    _check_options(sample, limit, direction, norm)
    _check_files(out, csv, force)
    extra = options.module_options(arch, bounds, classes, input_shape, mean, std, normalise, output, dtype)
    values: dict[str, Any] = {
        "models": [{"model": model, **extra}],
        "data": data,
        "split": split,
        "limit": limit,
        "attacks": "none",
        "seed": seed,
    }
    place = options.check_device(device)
    plan = make_plan(build_protocol(values, "sensitivity"), data_root=data_root, device=place)
    chosen = _chosen(plan.data, sample, limit, seed)
    x, y = samples_for(plan.models[0], chosen)
    classifier = plan.models[0].module
    wanted = None if target is None else _target(target, chosen, classifier.classes).to(y)
    step = None if direction == "margin" else follow(classifier, x, direction, norm, y=y)
    found = maps(classifier, x, y, norm=norm, target=wanted, delta=step)
    numbers = chosen.index.tolist()
    plot = sensitivity_plot(found, x, samples=numbers, direction=direction)
    write_plot(plot, out)
    if csv is not None:
        write_text(depth_rows(found, numbers).to_csv(index=False), csv)
    rows = sample_rows(found, numbers)
    if json_:
        document = {"command": command_line(), "data": chosen.caption, "out": str(out), "norm": norm}
        csv_path = None if csv is None else str(csv)
        emit({**document, "csv": csv_path, "no_depth": found.reason, "samples": rows.to_dict("records")})
        return
    _show(found, rows, f"Sensitivity of {plan.models[0].label}", f"Shown: {chosen.caption}. {plot.caption}")
    for path in (out, csv):
        if path is not None:
            say(f"wrote {path}")


def _check_options(sample: list[int] | None, limit: str | None, direction: str, norm: str) -> None:
    from robustode.errors import OptionError, unknown
    from robustode.sensitivity.norms import check_norm

    if sample and limit is not None:
        raise OptionError("options", expected="--sample or --limit", got="both")
    if direction not in DIRECTIONS:
        raise unknown("direction", direction, DIRECTIONS)
    check_norm(norm)


def _check_files(out: Path, csv: Path | None, force: bool) -> None:
    from robustode.errors import OptionError
    from robustode.reporting.plot import check_name

    options.check_file(out, force)
    check_name(out)
    if csv is not None:
        if csv.resolve() == out.resolve():
            raise OptionError("--csv", expected="another file than --out", got=f"'{csv}'")
        options.check_file(csv, force)


def _chosen(data: Data, sample: list[int] | None, limit: str | None, seed: int) -> Data:
    """Return the samples to draw; raise `OptionError` if they do not fit into one figure."""
    from robustode.data.subset import stratified
    from robustode.errors import OptionError
    from robustode.reporting.maps import MOST

    if sample:
        data = data.take(sample)
    elif limit is None and len(data) > SHOWN:
        data = data.take(data.index[stratified(data.y, SHOWN, seed)].tolist())
    if len(data) > MOST:
        raise OptionError("samples of a figure", expected=f"at most {MOST}", got=len(data), fix=f"Use --limit {MOST}.")
    return data


def _target(target: int, data: Data, classes: int) -> Tensor:
    """Return the class of every sample's margin; raise `OptionError` if it is none, or a sample's own."""
    import torch

    from robustode.errors import OptionError

    if not 0 <= target < classes:
        raise OptionError("--target", expected=f"a class from 0 to {classes - 1}", got=target)
    own = data.index[data.y == target].tolist()
    if own:
        raise OptionError("--target", expected="a class other than the labels", got=f"that of sample {own[0]}")
    return torch.full_like(data.y, target)


def _show(found: SensitivityMap, rows: pd.DataFrame, title: str, note: str) -> None:
    from robustode.reporting.formatting import norm_name, number

    columns = ["sample", "label", "predicted", "against class", "margin", f"linear {norm_name(found.norm)} distance"]
    numbers = ["margin", "distance"]
    if found.along is not None:
        columns += ["‖ξ(T)‖ / ‖ξ(0)‖", "grows fastest at t", "‖λ(t)‖ largest at t"]
        numbers += ["growth", "steepest", "critical"]
    shown = [
        (*(str(row[name]) for name in ("sample", "label", "predicted", "other")), *(number(row[n]) for n in numbers))
        for row in rows.to_dict("records")
    ]
    show_rows(title, columns, shown)
    show_note(note if found.reason is None else f"{note} No curves along depth: {found.reason}.")
