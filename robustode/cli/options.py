"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from robustode.errors import OptionError, RunError, unknown


def at_least(least: int) -> Callable[[typer.CallbackParam, int | None], int | None]:
    """Return the check of an option that takes a whole number ≥ `least`."""

    def check(param: typer.CallbackParam, value: int | None) -> int | None:
        if value is not None and value < least:
            raise OptionError(param.opts[0], expected=f"a whole number ≥ {least}", got=value)
        return value

    return check


Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Checkpoint, zoo:NAME, python:FILE.py:factory, or a state dict with --arch. Repeats.",
    ),
]
Model = Annotated[str, typer.Option("--model", metavar="MODEL", help="Model, as for eval.")]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="DATA", help="Data set by name or path; default the checkpoint's own."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Folder of the real image sets; default $ROBUSTODE_DATA."),
]
Split = Annotated[str, typer.Option("--split", metavar="SPLIT", help="test or train.")]
Limit = Annotated[
    str | None,
    typer.Option("--limit", metavar="N", help="N samples, random and class-stratified; first:N for the first N."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", callback=at_least(0), help="Seed of every random draw.")]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or mps.")]
DType = Annotated[
    str | None,
    typer.Option("--dtype", metavar="DTYPE", help="float32 or float64: what the models compute in; default their own."),
]
SEARCH_PRECISION = typer.Option(
    "--search-precision",
    metavar="PRECISION",
    help="full, tf32 or bfloat16: what attacks multiply in while they search; judged is always in full float32.",
)
CudaGraphs = Annotated[
    bool, typer.Option("--cuda-graphs", help="Replay the sweeps of sNODEs as CUDA graphs while attacks search.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Eps = Annotated[
    list[str] | None,
    typer.Option("--eps", metavar="EPS", help="Radii: 4/255,8/255, or linf=4/255 with several norms. Repeats."),
]
Norms = Annotated[list[str] | None, typer.Option("--norm", metavar="NORM", help="linf, l2 or l1. Repeats.")]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="K=V", help="Parameter of an attack given as library:NAME. Repeats."),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Output directory; default in runs/.")]
Audit = Annotated[
    str,
    typer.Option("--audit", metavar="cheap|full", help="Checks of the numbers: those that cost little, or all."),
]
AuditOrNone = Annotated[
    str | None,
    typer.Option("--audit", metavar="none|cheap|full", help="Checks of the numbers: none, the cheap ones, or all."),
]
Transfer = Annotated[
    list[str] | None,
    typer.Option("--transfer", metavar="MODEL", help="Another model whose adversarials a full audit tries. Repeats."),
]
NoStore = Annotated[bool, typer.Option("--no-store", help="Do not keep the adversarials.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with status 3 if a check of the audit finds a defect.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in the same directory.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
EngineName = Annotated[
    str,
    typer.Option("--engine", metavar="ENGINE", help="What computes the units of work: local, processes or ray."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", callback=at_least(1), help="Units computed at once; default one a core."),
]
Address = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDR", help="Ray cluster, HOST:PORT or auto; default one on this machine."),
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Only predict passes, FLOPs, memory and time, for --workers N; write nothing.")
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="What one process may take, such as 2GB; chooses the chunks."),
]
Shard = Annotated[int, typer.Option("--shard", metavar="N", callback=at_least(1), help="Samples in a unit of work.")]
AllowLowAccuracy = Annotated[
    bool, typer.Option("--allow-low-accuracy", help="Go on although the clean accuracy is suspicious.")
]
Arch = Annotated[
    str | None, typer.Option("--arch", metavar="CODE", help="Module of a state dict: python:FILE.py:factory.")
]
Bounds = Annotated[str | None, typer.Option("--bounds", metavar="LO,HI", help="Box of the model's inputs.")]
Classes = Annotated[int | None, typer.Option("--classes", metavar="K", callback=at_least(2), help="Number of classes.")]
InputShape = Annotated[str | None, typer.Option("--input-shape", metavar="C,H,W", help="Shape of one input.")]
Mean = Annotated[str | None, typer.Option("--mean", metavar="M,...", help="What the model subtracts, by channel.")]
Std = Annotated[str | None, typer.Option("--std", metavar="S,...", help="What the model divides by, by channel.")]
Normalise = Annotated[
    str | None,
    typer.Option("--normalise", metavar="NAME", help="Mean and std of mnist, fashion-mnist, cifar10 or imagenet."),
]
Output = Annotated[
    str | None,
    typer.Option("--output", metavar="WHICH", help="Output with the logits: a key, an index, last or binary."),
]


def check_place(folder: Path, *, resume: bool = False, force: bool = False) -> None:
    """Raise, before anything is computed, unless files can be written in `folder`, which need not exist yet."""
    if resume and force:
        fix = "--resume keeps what is finished, --force deletes it."
        raise OptionError("options", expected="--resume or --force", got="both", fix=fix)
    above = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    got = None if above.is_dir() else f"the file '{above}'"
    if got is None:
        try:
            with tempfile.TemporaryFile(dir=above):
                pass
        except OSError as reason:
            got = f"'{above}': {reason.strerror}"
    if got is not None:
        raise RunError(
            f"output '{folder}'", expected="a folder that can be written", got=got, fix="Choose another --out."
        )


def check_file(path: Path, force: bool) -> None:
    """Raise, before anything is computed, unless this file can be written: it is new, or `force` replaces it."""
    if path.is_dir() or (path.exists() and not force):
        got = "a folder" if path.is_dir() else "it exists"
        fix = "Choose another name, or use --force for a file."
        raise RunError(f"output file '{path}'", expected="a new one", got=got, fix=fix)
    check_place(path.parent)


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


def params_of(texts: Sequence[str] | None, option: str = "--param") -> dict[str, Any]:
    """Return K=V, K=V as {K: value}; values are read as TOML (3, 0.1, true, "text"), else taken as text."""
    out: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise OptionError(option, expected="NAME=VALUE", got=f"'{text}'")
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
    dtype: str | None,
) -> dict[str, Any]:
    """Return the options of a user's own module as fields of `ModelEntry`, without those not given.

    Raises:
        OptionError: a text that cannot be read, or a mean without a standard deviation.
    """
    if (mean is None) != (std is None):
        got = "--mean" if std is None else "--std"
        raise OptionError(
            "normalisation",
            expected="--mean and --std",
            got=f"{got} alone",
            fix="Give both; --mean 0 and --std 1 change nothing.",
        )
    values = {
        "arch": arch,
        "bounds": bounds_of(bounds),
        "classes": classes,
        "input_shape": shape_of(input_shape),
        "mean": numbers("--mean", mean),
        "std": numbers("--std", std),
        "normalise": normalise,
        "output": output,
        "dtype": dtype,
    }
    return {key: value for key, value in values.items() if value is not None}


def check_device(device: str) -> str:
    """Return the device's name; raise `OptionError`, with the nearest name, if there is none such."""
    names = ("auto", "cpu", "cuda", "mps")
    if device.partition(":")[0] not in names:
        raise unknown("device", device, names, OptionError)
    from robustode.models import resolve_device

    return str(resolve_device(device))
