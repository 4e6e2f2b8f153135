"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from robustode.errors import AttackError, OptionError, unknown

Model = Annotated[
    list[str],
    typer.Option("--model", help="Checkpoint, zoo:NAME, python:FILE.py:factory, or a state dict with --arch. Repeats."),
]
Data = Annotated[str | None, typer.Option("--data", help="Data set by name or path; default the checkpoint's own.")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder of the real image sets, as torchvision keeps them; else $ROBUSTODE_DATA."),
]
Split = Annotated[str, typer.Option("--split", help="test or train.")]
Limit = Annotated[
    str | None, typer.Option("--limit", help="N for a class-stratified random subset, first:N for the first N.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random draw.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Eps = Annotated[
    list[str] | None,
    typer.Option("--eps", help="Radii: 4/255,8/255 with one norm; linf=4/255 (repeat for l2=...) with several."),
]
Norms = Annotated[list[str] | None, typer.Option("--norm", help="Norm of the attacks: l2, linf or l1. Repeats.")]
Params = Annotated[list[str] | None, typer.Option("--param", help="K=V of an attack given as library:NAME. Repeats.")]
Out = Annotated[Path | None, typer.Option("--out", help="Output directory.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in the same directory.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Arch = Annotated[str | None, typer.Option("--arch", help="python:FILE.py:factory of the module of a state dict.")]
Bounds = Annotated[str | None, typer.Option("--bounds", help="LO,HI of the model's inputs.")]
Classes = Annotated[int | None, typer.Option("--classes", help="Number of classes.")]
InputShape = Annotated[str | None, typer.Option("--input-shape", help="C,H,W of one input.")]
Mean = Annotated[str | None, typer.Option("--mean", help="Mean that the model subtracts, by channel.")]
Std = Annotated[str | None, typer.Option("--std", help="Standard deviation that the model divides by, by channel.")]
Normalise = Annotated[
    str | None, typer.Option("--normalise", help="mnist, fashion-mnist, cifar10 or imagenet in place of --mean --std.")
]
Output = Annotated[
    str | None, typer.Option("--output", help="Which output holds the logits: a key, an index, last or binary.")
]


def numbers(option: str, text: str | None, count: int | None = None) -> tuple[float, ...] | None:
    """Return the comma-separated numbers of an option, or None; raise `OptionError` if they are none."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(option, expected="numbers separated by commas", got=f"'{text}'") from None
    if count is not None and len(values) != count:
        raise OptionError(option, expected=f"{count} numbers separated by commas", got=f"'{text}'")
    return values


def bounds_of(text: str | None) -> tuple[float, float] | None:
    """Return --bounds as (lo, hi), lo < hi."""
    values = numbers("--bounds", text, 2)
    if values is not None and not values[0] < values[1]:
        raise OptionError("--bounds", expected="LO,HI with LO < HI", got=f"'{text}'")
    return None if values is None else (values[0], values[1])


def shape_of(text: str | None) -> tuple[int, ...] | None:
    """Return --input-shape as positive integers."""
    values = numbers("--input-shape", text)
    if values is not None and any(v != int(v) or v < 1 for v in values):
        raise OptionError("--input-shape", expected="positive integers C,H,W", got=f"'{text}'")
    return None if values is None else tuple(int(v) for v in values)


def params_of(texts: Sequence[str] | None) -> dict[str, Any]:
    """Return --param K=V as {K: value}; values are read as TOML (3, 0.1, true, "text"), else taken as text."""
    out: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise AttackError("--param", expected="NAME=VALUE", got=f"'{text}'")
        try:
            out[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            out[key.strip()] = value
    return out


def module_options(
    arch: str | None,
    bounds: str | None,
    classes: int | None,
    input_shape: str | None,
    mean: str | None,
    std: str | None,
    normalise: str | None,
    output: str | None,
) -> dict[str, Any]:
    """Return the options of a user's own module as fields of `ModelEntry`, without those not given."""
    values = {
        "arch": arch,
        "bounds": bounds_of(bounds),
        "classes": classes,
        "input_shape": shape_of(input_shape),
        "mean": numbers("--mean", mean),
        "std": numbers("--std", std),
        "normalise": normalise,
        "output": output,
    }
    return {key: value for key, value in values.items() if value is not None}


def check_device(device: str) -> str:
    """Return the device's name; raise `OptionError`, with the nearest name, if there is none such."""
    names = ("auto", "cpu", "cuda", "mps")
    if device.partition(":")[0] not in names:
        raise unknown("device", device, names, OptionError)
    from robustode.models import resolve_device

    return str(resolve_device(device))
