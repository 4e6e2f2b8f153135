"""`robustode uncertainty`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from robustode.cli import options
from robustode.cli.console import emit, percent, say, show_note, show_rows
from robustode.cli.evaluate import command_line


def uncertainty_command(
    model: options.Model,
    data: options.Data = None,
    sigma: Annotated[
        str, typer.Option("--sigma", metavar="S,...", help="Standard deviations of the noise, in input units.")
    ] = "0.02,0.05,0.1,0.2",
    draws: Annotated[
        int,
        typer.Option("--draws", metavar="N", callback=options.at_least(2), help="Monte Carlo draws for each sample."),
    ] = 1000,
    limit: options.Limit = None,
    split: options.Split = "test",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Parquet file, one row per sample and sigma.")
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
    force: options.Force = False,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Predict the accuracy under Gaussian noise.

    Linear propagation (one linearisation a sample) beside Monte Carlo.

    Example: robustode uncertainty --model zoo:snode-digits --sigma 0.05,0.1 --limit 100
    """
    from robustode.errors import OptionError
    from robustode.evaluation.plan import make_plan
    from robustode.evaluation.protocol import build_protocol
    from robustode.evaluation.uncertain import noise_table

    sigmas = options.numbers("--sigma", sigma) or ()
    if not sigmas or not all(0 <= value < math.inf for value in sigmas):
        raise OptionError("--sigma", expected="finite numbers ≥ 0 separated by commas", got=f"'{sigma}'")
    if out is not None:
        options.check_file(out, force)
    extra = options.module_options(arch, bounds, classes, input_shape, mean, std, normalise, output)
    values: dict[str, Any] = {
        "models": [{"model": model, **extra}],
        "data": data,
        "split": split,
        "limit": limit,
        "attacks": "none",
        "seed": seed,
    }
    place = options.check_device(device)
    plan = make_plan(build_protocol(values, "uncertainty"), data_root=data_root, device=place)
    summary, rows = noise_table(plan, sigmas, draws=draws, seed=seed)
    if out is not None:
        from robustode.files import atomic

        with atomic(out) as temporary:
            rows.to_parquet(temporary, index=False)
    if json_:
        emit({"command": command_line(), "data": plan.data.caption, "noise": summary.to_dict("records")})
        return
    columns = ("σ", "predicted accuracy", "Monte Carlo accuracy", "standard error")
    shares = ("predicted", "monte_carlo", "standard_error")
    shown = [(f"{r['sigma']:g}", *(percent(r[name], 2) for name in shares)) for r in summary.to_dict("records")]
    show_rows(f"{plan.models[0].label} under Gaussian noise", columns, shown)
    show_note(
        f"Mean over {plan.data.caption}. Predicted: linear propagation, one forward pass and one reverse row a class. "
        f"Monte Carlo: {draws} draws a sample, noise not clipped; its standard error covers the draws, not the choice "
        "of samples."
    )
    if out is not None:
        say(f"wrote {out}")
