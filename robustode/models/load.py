"""Models by name: a checkpoint, the zoo, the user's own code, or the user's state dict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustode.errors import ModelError, OptionError, unknown
from robustode.models.checkpoint import KEY, Header, load_checkpoint, read_header
from robustode.models.device import resolve_device
from robustode.models.factory import PREFIX, load_factory
from robustode.models.normalise import Statistic, preset
from robustode.models.statedict import TORCH_SUFFIXES, load_state
from robustode.models.tensors import existing_file, read_safetensors
from robustode.models.wrap import WrappedModel, refuse, wrap
from robustode.models.zoo import zoo_file, zoo_names

ZOO = "zoo:"
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def load_model(
    spec: str | Path | nn.Module,
    *,
    arch: str | None = None,
    bounds: Sequence[float] | None = None,
    classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    mean: Statistic | None = None,
    std: Statistic | None = None,
    normalise: str | None = None,
    output: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    sample: Tensor | None = None,
    default_bounds: Sequence[float] | None = None,
) -> nn.Module:
    """Return a classifier in eval mode: (batch, *input_shape) to logits (batch, classes), with `notes` on its loading.

    What is loaded or built here is frozen (`requires_grad` False); a module passed as an object is not.

    Args:
        spec: a RobustODE checkpoint, "zoo:NAME", "python:FILE.py:factory" or "python:package.module:factory", a plain
            state dict (with `arch`), or a module.
        arch: "python:..." factory of the module that a plain state dict belongs to.
        bounds, classes, input_shape, mean, std, output: as in `wrap`; only for models that are not RobustODE's own.
        normalise: "mnist", "fashion-mnist", "cifar10" or "imagenet" in place of mean and std.
        device: "auto", "cpu", "cuda" or "mps"; None is the CPU, or where a module passed as an object is.
        dtype: "float32" or "float64", in which the model computes from then on, also a module that is passed as an
            object; None leaves it as it is.
        sample: one sample (1, *input_shape) of the data.
        default_bounds: bounds of the data, used if neither `bounds` nor the module says.

    Raises:
        ModelError: the model cannot be found, read, built or used as a classifier.
        OptionError: the device is unknown or not there, or the dtype is another.
    """
    place = None if device is None else resolve_device(device)
    if dtype is not None and dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES, OptionError)
    if dtype == "float64" and place is not None and place.type == "mps":
        raise OptionError("dtype", expected="float32 on the device 'mps', which has no other", got=dtype)
    facts = {"bounds": bounds, "classes": classes, "input_shape": input_shape}
    options: dict[str, Any] = {**facts, "mean": mean, "std": std, "output": output}
    given = [name for name, value in {**options, "normalise": normalise}.items() if value is not None]
    module, notes = _build(spec, arch, given)
    if place is not None:
        module.to(place)
    if dtype is not None:
        module.to(DTYPES[dtype])
    if normalise is not None:
        options["mean"], options["std"] = _preset(normalise, mean, std)
    if bounds is None and getattr(module, "bounds", None) is None:
        options["bounds"] = default_bounds
    model = wrap(module, sample=sample, **options)
    if not isinstance(spec, nn.Module):
        model.requires_grad_(False)
        model.notes = notes  # type: ignore[assignment]
    return model


def peek(spec: str | Path | nn.Module) -> dict[str, Any]:
    """Return what is known of a model without building it.

    Returns:
        label: zoo name, file stem, factory name or class name.
        header: the checkpoint's `Header`, or None.
        data, accuracy: those of the header, or None.

    Raises:
        ModelError: there is no such file or zoo model, or its header cannot be read.
    """
    header: Header | None = None
    if isinstance(spec, nn.Module):
        label = type(spec.module if isinstance(spec, WrappedModel) else spec).__name__
    elif (name := str(spec)).startswith(ZOO):
        label = name.removeprefix(ZOO)
        with zoo_file(label) as path:
            header = read_header(path)
    elif name.startswith(PREFIX):
        label = name.rpartition(":")[2]
    else:
        path = _model_file(spec)
        label, header = path.stem, read_header(path) if _is_checkpoint(path) else None
    return {
        "label": label,
        "header": header,
        "data": header.data if header else None,
        "accuracy": header.accuracy if header else None,
    }


def _build(spec: str | Path | nn.Module, arch: str | None, given: list[str]) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the bare module and what was done to load it."""
    name = type(spec).__name__ if isinstance(spec, nn.Module) else str(spec)
    if isinstance(spec, nn.Module) or name.startswith((PREFIX, ZOO)):
        if arch is not None:
            fix = "Leave out --arch."
            raise ModelError(f"arch of '{name}'", expected="none: it is for a plain state dict", got=arch, fix=fix)
        if isinstance(spec, nn.Module):
            return spec, ()
        if name.startswith(PREFIX):
            return _from_factory(name, "model factory"), ()
        with zoo_file(name.removeprefix(ZOO)) as path:
            refuse(given, f"RobustODE checkpoint ('{name}')")
            return load_checkpoint(path), ()
    path = _model_file(name)
    if _is_checkpoint(path):
        refuse([*given, *(["arch"] if arch is not None else [])], f"RobustODE checkpoint ('{path}')")
        return load_checkpoint(path), ()
    if arch is None:
        fix = "Name the code that builds its module: --arch python:FILE.py:factory"
        raise ModelError(f"model file '{path}'", expected="a RobustODE checkpoint", got="a plain state dict", fix=fix)
    module = _from_factory(arch, "arch")
    return module, load_state(module, path)


def _from_factory(spec: str, what: str) -> nn.Module:
    factory = load_factory(spec, what=what)
    if isinstance(factory, nn.Module):
        return factory
    try:
        module = factory()
    except Exception as reason:
        raise ModelError(f"{what} '{spec}' raised {type(reason).__name__}: {reason}") from reason
    if not isinstance(module, nn.Module):
        fix = "Let it take no arguments and return the module."
        raise ModelError(f"{what} '{spec}'", expected="a torch.nn.Module", got=type(module).__name__, fix=fix)
    return module


def _model_file(spec: str | Path) -> Path:
    if not Path(spec).expanduser().exists() and str(spec) in zoo_names():
        raise ModelError(f"model file '{spec}'", got="no such file", fix=f"Did you mean 'zoo:{spec}'?")
    return existing_file(spec)


def _is_checkpoint(path: Path) -> bool:
    return path.suffix not in TORCH_SUFFIXES and KEY in read_safetensors(path, tensors=False)[0]


def _preset(normalise: str, mean: object, std: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if mean is not None or std is not None:
        raise ModelError("normalisation", expected="either --normalise or --mean and --std", got="both")
    return preset(normalise)
