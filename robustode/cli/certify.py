"""`robustode certify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robustode.cli import options
from robustode.cli.evaluate import default_directory, run_and_show
from robustode.errors import OptionError


def certify_command(
    model: options.Models,
    data: options.Data = None,
    norm: options.Norms = None,
    eps: options.Eps = None,
    methods: Annotated[
        str, typer.Option("--methods", metavar="B,...", help="Bounds (robustode list bounds); auto: all that fit.")
    ] = "auto",
    map_: Annotated[
        str, typer.Option("--map", metavar="discrete|flow", help="The deployed discrete map, or the ODE's solution.")
    ] = "discrete",
    smoothing: Annotated[
        float | None,
        typer.Option("--smoothing", metavar="SIGMA", help="Certify the model smoothed by noise instead (L2)."),
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", metavar="N", callback=options.at_least(1), help="Of the noise, for a sample.")
    ] = 1000,
    alpha: Annotated[
        float, typer.Option("--alpha", metavar="A", help="Probability at which a smoothed radius may be wrong.")
    ] = 0.001,
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
    shard: options.Shard = 500,
    allow_low_accuracy: options.AllowLowAccuracy = False,
    resume: options.Resume = False,
    force: options.Force = False,
    data_root: options.DataRoot = None,
    json_: options.Json = False,
) -> None:
    """Certify radii that no attack can break.

    For every sample a radius within which no input has another answer, whatever the attack. Writes a run directory, as
    eval does, without attacks; eval --certify puts them beside attacks.

    Example: robustode certify --model zoo:snode-digits --norm l2 --limit 100
    """
    from robustode.evaluation.budgets import parse_budgets
    from robustode.evaluation.protocol import build_protocol
    from robustode.models import peek

    extra = options.module_options(arch, bounds, classes, input_shape, mean, std, normalise, output, dtype)
    values: dict[str, Any] = {
        "models": [{"model": one, **extra} for one in model],
        "data": data,
        "split": split,
        "limit": limit,
        "attacks": "none",
        "audit": "none",
        "seed": seed,
        "shard": shard,
        "allow_low_accuracy": allow_low_accuracy,
    }
    if smoothing is None:
        values["certificates"] = {"norms": norm or [], "methods": methods, "map": map_}
    else:
        _check_smoothing(norm, methods, map_)
        values["smoothing"] = {"sigma": smoothing, "draws": draws, "alpha": alpha}
    protocol = build_protocol(values, "certify")
    if eps:
        norms = ["l2"] if smoothing is not None else norm or ["linf", "l2"]
        protocol = protocol.changed("certify", budgets=parse_budgets(eps, norms))
    if out is None:
        labels = [peek(one)["label"] for one in model]
        source = data or next((d for one in model if (d := peek(one)["data"])), "data")
        out = default_directory(labels, source, "certify" if smoothing is None else "smoothed")
    run_and_show(protocol, Path(out), resume, force, device, data_root, json_, strict=False)


def _check_smoothing(norm: list[str] | None, methods: str, map_: str) -> None:
    """Raise `OptionError` where something is asked of a smoothed model that it has not."""
    for option, value, only in (
        ("--norm", ",".join(norm or ["l2"]), "l2"),
        ("--methods", methods, "auto"),
        ("--map", map_, "discrete"),
    ):
        if value != only:
            raise OptionError(
                f"{option} with --smoothing",
                expected=f"{only}: smoothing certifies the smoothed model in L2, without bounds of the model",
                got=f"'{value}'",
                fix="Certify the model itself in a call without --smoothing.",
            )
