"""Tensors from files into modules, strictly: every error names the file and the tensors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from robustode.errors import ModelError

MODEL_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def existing_file(path: str | Path) -> Path:
    """Return `path` if it is a file.

    Raises:
        ModelError: it is not; the nearest name in its folder is suggested.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        found = sorted(p.name for p in path.iterdir() if p.suffix in MODEL_SUFFIXES)
        raise ModelError(f"model file '{path}'", expected="a file", got=f"a folder with {_listed(found) or 'no model'}")
    if not path.parent.is_dir():
        raise ModelError(f"model file '{path}'", expected="an existing file", got=f"no folder '{path.parent}'")
    names = [p.name for p in path.parent.iterdir() if p.is_file()]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    fix = (
        f"Did you mean '{path.parent / near[0]}'?" if near else f"Check the path; the folder is {path.parent.resolve()}"
    )
    raise ModelError(f"model file '{path}'", expected="an existing file", got="no such file", fix=fix)


def read_safetensors(path: Path, *, tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return (metadata, tensors) of a safetensors file; no tensors if not asked for.

    Raises:
        ModelError: the file is truncated, damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return metadata, {name: file.get_tensor(name).clone() for name in file.keys()} if tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as reason:
        with path.open("rb") as file:
            start = file.read(2)
        if start[:1] == b"\x80" or start == b"PK":
            got = "a file that torch.save wrote"
            raise ModelError(f"model file '{path}'", expected="safetensors", got=got, fix="Rename it to .pt.") from None
        raise ModelError(
            f"model file '{path}'",
            expected="a complete safetensors file",
            got=f"one that is truncated, damaged or of another format ({reason})",
            fix="Copy or write it again.",
        ) from None


def load_strict(
    module: nn.Module, tensors: Mapping[str, Tensor], *, source: str | Path, infinite_buffers: bool = False
) -> None:
    """Load `tensors` into `module`: every name and shape must agree, and every value be finite.

    Args:
        module: the module to fill; its tensors keep their dtype.
        tensors: what the file holds.
        source: the file, for the message.
        infinite_buffers: allow ±inf in buffers (attention masks).

    Raises:
        ModelError: names all tensors that are missing, unexpected, of the wrong shape, or not finite.
    """
    wanted = module.state_dict()
    problems = {
        "missing": [f"{name} {tuple(value.shape)}" for name, value in wanted.items() if name not in tensors],
        "unexpected": [f"{name} {tuple(value.shape)}" for name, value in tensors.items() if name not in wanted],
        "wrong shape": [
            f"{name} is {tuple(tensors[name].shape)}, not {tuple(value.shape)}"
            for name, value in wanted.items()
            if name in tensors and tensors[name].shape != value.shape
        ],
    }
    if any(problems.values()):
        got = "; ".join(f"{problem}: {_listed(names)}" for problem, names in problems.items() if names)
        fix = "Check that the file belongs to this architecture."
        what = f"tensors of '{source}'"
        raise ModelError(what, expected=f"those of {type(module).__name__}", got=got, fix=fix)
    parameters = dict(module.named_parameters())
    bad = [
        f"{name} ({int((~value.isfinite()).sum())} of {value.numel()})"
        for name, value in tensors.items()
        if value.is_floating_point()
        and not bool((value.isfinite() | (value.isinf() & (infinite_buffers and name not in parameters))).all())
    ]
    if bad:
        fix = "Use an earlier checkpoint, or train again with a smaller step."
        raise ModelError(
            f"tensors of '{source}'", expected="finite values", got=f"NaN or inf in {_listed(bad)}", fix=fix
        )
    module.load_state_dict(dict(tensors), strict=True)


def floating_dtype(tensors: Iterable[Tensor]) -> torch.dtype | None:
    """Return the dtype of the first floating-point tensor, or None."""
    return next((value.dtype for value in tensors if value.is_floating_point()), None)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
