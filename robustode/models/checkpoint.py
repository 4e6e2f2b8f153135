"""RobustODE's checkpoint: one .safetensors file that says how to build the model and where it came from.

The metadata key "robustode" holds JSON: schema version, architecture and configuration, data name, bounds, classes,
input shape and the provenance of the training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import nn

from robustode.errors import ModelError
from robustode.files import atomic
from robustode.models.config import validated
from robustode.models.registry import architecture, is_own
from robustode.models.tensors import existing_file, floating_dtype, load_strict, read_safetensors

KEY = "robustode"
SCHEMA = 1


class Header(BaseModel):
    """What a checkpoint says of itself, without its tensors.

    Attributes:
        schema_version: of the header ("schema" in the file); this version writes and reads 1.
        arch: name of the architecture ("snode", "conv-snode", "layered", "resnet").
        config: what the architecture's `from_config` takes.
        data: name of the data it was trained on, or None if that data has no name.
        bounds, classes, input_shape: as in `Classifier`; those of `config`.
        provenance: of the training: command, seed, epochs, cost, optimiser, accuracy (fraction of the test split),
            versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(alias="schema")
    arch: str
    config: dict[str, Any]
    data: str | None
    bounds: tuple[float, float]
    classes: int = Field(ge=2)
    input_shape: tuple[int, ...]
    provenance: dict[str, Any]

    @property
    def accuracy(self) -> float | None:
        """Accuracy on the test split when it was trained, in [0, 1]; None if not recorded."""
        value = self.provenance.get("accuracy")
        return None if value is None else float(value)


def check_target(path: str | Path, *, force: bool = False) -> Path:
    """Return the path a checkpoint may be written to; call it before a long training.

    Raises:
        ModelError: the name does not end in .safetensors, or the file exists and `force` is False.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        fix = f"Write '{path.with_suffix('.safetensors')}'."
        raise ModelError("checkpoint name", expected="a name that ends in .safetensors", got=f"'{path.name}'", fix=fix)
    if path.is_dir() or (path.exists() and not force):
        what, kind = f"checkpoint '{path}'", "folder" if path.is_dir() else "file"
        raise ModelError(what, expected="a new file", got=f"an existing {kind}", fix="Choose another name or --force.")
    return path


def save_checkpoint(
    model: nn.Module, path: str | Path, *, data: str | None, provenance: Mapping[str, Any], force: bool = False
) -> Path:
    """Write one of RobustODE's own models to a .safetensors file, all of it or nothing; missing folders are made.

    Args:
        model: a model of `ARCHITECTURES`; its dtype is kept.
        path: name of the file.
        data: name of the data source it was trained on.
        provenance: JSON-able, see `Header`.
        force: replace an existing file.

    Raises:
        ModelError: the model is not one of ours, the file exists, or the header cannot be written as JSON.
    """
    path = check_target(path, force=force)
    if not is_own(model):
        fix = "Save it with torch.save(model.state_dict(), 'FILE.pt') and load that with --arch."
        raise ModelError("save_checkpoint", expected="a RobustODE architecture", got=type(model).__name__, fix=fix)
    config: dict[str, Any] = model.config  # type: ignore[assignment]
    shared = {key: config[key] for key in ("bounds", "classes", "input_shape")}
    header = {"schema": SCHEMA, "arch": model.arch, "config": config, "data": data, "provenance": dict(provenance)}
    try:
        text = json.dumps({**header, **shared}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as reason:
        raise ModelError("provenance of a checkpoint", expected="finite JSON values", got=str(reason)) from None
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={KEY: text})
    return path


def read_header(path: str | Path) -> Header:
    """Return the header of a checkpoint, without reading its tensors.

    Raises:
        ModelError: the file is missing, damaged, not a RobustODE checkpoint, or of another schema version.
    """
    path = existing_file(path)
    return _header(read_safetensors(path, tensors=False)[0], path)


def load_checkpoint(path: str | Path) -> nn.Module:
    """Return the model of a checkpoint, on the CPU in eval mode, in the dtype it was saved in.

    Raises:
        ModelError: as `read_header`; or the architecture is unknown, its configuration invalid, a tensor missing,
            unexpected, of the wrong shape or not finite.
    """
    path = existing_file(path)
    metadata, tensors = read_safetensors(path)
    header = _header(metadata, path)
    build = architecture(header.arch).from_config
    try:
        model: Any = build(header.config)
    except (ModelError, TypeError, ValueError, KeyError) as reason:
        raise ModelError(f"configuration in the header of '{path}' is not valid: {reason}") from reason
    for name in ("bounds", "classes", "input_shape"):
        if getattr(model, name) != getattr(header, name):
            got = f"{getattr(header, name)} beside {getattr(model, name)} in its configuration"
            raise ModelError(f"header of '{path}'", expected=f"one value of {name}", got=got)
    model.to(floating_dtype(tensors.values()))
    load_strict(model, tensors, source=path)
    return model.eval()


def _header(metadata: Mapping[str, str], path: Path) -> Header:
    if KEY not in metadata:
        raise ModelError(
            f"model file '{path}'",
            expected="the header of a RobustODE checkpoint",
            got="a plain state dict",
            fix="Name the code that builds its module: --arch python:FILE.py:factory",
        )
    try:
        values = json.loads(metadata[KEY])
        version = values["schema"]
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"header of '{path}'", expected="JSON with a schema version", got="damaged text") from None
    if version != SCHEMA:
        newer = isinstance(version, int) and version > SCHEMA
        fix = "Update RobustODE: pip install -U robustode" if newer else "Train or export the model again."
        raise ModelError(f"header of '{path}'", expected=f"schema {SCHEMA}", got=f"schema {version!r}", fix=fix)
    return validated(Header, values, what=f"header of '{path}'")
