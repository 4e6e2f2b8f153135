"""`robustode uncertainty`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robustode.cli import options
from robustode.cli.evaluate import default_directory, run_and_show


def uncertainty_command(
    model: options.Models,
    data: options.Data = None,
    sigma: Annotated[
        str, typer.Option("--sigma", metavar="S,...", help="Standard deviations of the noise, in input units.")
    ] = "0.02,0.05,0.1,0.2",
    weights: Annotated[
        str,
        typer.Option("--weights", metavar="NOISE", help="Noise of the weights: none, int8 or a standard deviation."),
    ] = "none",
    methods: Annotated[
        str, typer.Option("--methods", metavar="M,...", help="Of auto, linear, gaussian, unscented.")
    ] = "auto",
    draws: Annotated[
        int,
        typer.Option("--draws", metavar="N", callback=options.at_least(2), help="Monte Carlo draws for each sample."),
    ] = 1000,
    drawn: Annotated[
        int,
        typer.Option("--drawn", metavar="N", callback=options.at_least(0), help="How many of the samples are drawn."),
    ] = 200,
    limit: options.Limit = None,
    split: options.Split = "test",
    out: options.Out = None,
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
    allow_low_accuracy: options.AllowLowAccuracy = False,
    resume: options.Resume = False,
    force: options.Force = False,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Predict the accuracy under Gaussian noise.

    Propagates noise of inputs and weights to the logits and puts Monte Carlo beside it. Writes a run directory, as eval
    does, without attacks.

    Example: robustode uncertainty --model zoo:snode-digits --sigma 0.05,0.1 --limit 100
    """
    from robustode.evaluation.protocol import build_protocol
    from robustode.models import peek

    extra = options.module_options(arch, bounds, classes, input_shape, mean, std, normalise, output, dtype)
    noise: dict[str, Any] = {"sigma": sigma, "weights": weights, "draws": draws, "drawn": drawn}
    values: dict[str, Any] = {
        "models": [{"model": one, **extra} for one in model],
        "data": data,
        "split": split,
        "limit": limit,
        "attacks": "none",
        "audit": "none",
        "uncertainty": {**noise, "methods": [part.strip() for part in methods.split(",")]},
        "seed": seed,
        "allow_low_accuracy": allow_low_accuracy,
    }
    protocol = build_protocol(values, "uncertainty")
    if out is None:
        labels = [peek(one)["label"] for one in model]
        source = data or next((d for one in model if (d := peek(one)["data"])), "data")
        out = default_directory(labels, source, "uncertainty")
    run_and_show(protocol, Path(out), resume, force, device, data_root, json_, strict=False)
