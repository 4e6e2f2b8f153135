"""`--model` with files and code that cannot be used: one clear error each, and nothing a file holds is ever run."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.cli.command import refused, robustode

EVAL = "eval --data digits --limit 20 --attacks none --model"


class Evil:
    """Unpickling it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("PWNED",)


def damaged(name: str) -> None:
    """Write the file `name`, a checkpoint with the fault that it is named after."""
    tensors = load_file("s.safetensors")
    with safe_open("s.safetensors", "pt") as file:
        metadata = file.metadata()
    header = json.loads(metadata["robustode"])
    first = sorted(tensors)[0]
    changed = {
        "missing": ({k: v for k, v in tensors.items() if k != first}, metadata),
        "extra": ({**tensors, "extra": torch.zeros(2)}, metadata),
        "shape": ({**tensors, first: torch.zeros(3)}, metadata),
        "nan": ({**tensors, first: tensors[first] * float("nan")}, metadata),
        "plain": (tensors, None),
        "text": (tensors, {"robustode": "{oops"}),
        "schema": (tensors, {"robustode": json.dumps({**header, "schema": 9})}),
        "arch": (tensors, {"robustode": json.dumps({**header, "arch": "snod"})}),
    }
    stem = name.partition(".")[0]
    if stem in changed:
        save_file(*changed[stem][:1], name, metadata=changed[stem][1])
    elif stem == "truncated":
        whole = Path("s.safetensors").read_bytes()
        Path(name).write_bytes(whole[: len(whole) // 2])
    elif stem == "empty":
        Path(name).write_bytes(b"")
    elif stem == "pickled":
        Path(name).write_bytes(pickle.dumps(Evil()))
    elif stem == "nested":
        torch.save({"state_dict": Evil()}, name)


@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("s.safetensor", ["no such file", "Did you mean 's.safetensors'?"]),
        ("truncated.safetensors", ["complete safetensors file", "truncated"]),
        ("empty.safetensors", ["complete safetensors file", "header too small"]),
        ("plain.safetensors", ["expected a RobustODE checkpoint", "a plain state dict", "--arch"]),
        ("text.safetensors", ["header of 'text.safetensors'", "JSON with a schema version"]),
        ("schema.safetensors", ["expected schema 1, got schema 9", "Update RobustODE"]),
        ("arch.safetensors", ["unknown architecture", "Did you mean 'snode'?"]),
        ("missing.safetensors", ["expected those of SNODE, got missing: bias (10, 64)"]),
        ("extra.safetensors", ["got unexpected: extra (2,)"]),
        ("shape.safetensors", ["bias is (3,), not (10, 64)"]),
        ("nan.safetensors", ["expected finite values, got NaN or inf in bias"]),
        ("pickled.pt", ["--arch"]),
        ("pickled.pt --arch python:code_of_user.py:make", ["state dict of torch.save", "UnpicklingError"]),
        ("nested.pt --arch python:code_of_user.py:make", ["expected tensors only", "mkdir", "was not run"]),
        (".", ["expected a file, got a folder with"]),
        ("zoo:snode-digit", ["unknown zoo model", "Did you mean 'snode-digits'?"]),
        ("snode-digits", ["no such file", "Did you mean 'zoo:snode-digits'?"]),
        ("python:code_of_user.py", ["python:FILE.py:NAME"]),
        ("python:code_of_user.py:mak", ["one of", "make", "no 'mak' there"]),
        ("python:absent.py:make", ["a file absent.py", "no such file"]),
        ("python:code_of_user.py:number", ["expected a torch.nn.Module, got int"]),
        ("python:code_of_user.py:broken", ["raised ValueError: no luck"]),
        ("python:code_of_user.py:pair", ["got tuple (0: tensor (1, 10)", "Choose with --output: 0"]),
        ("python:code_of_user.py:pair --output 7", ["expected one of 0, 1, got '7'"]),
        ("s.safetensors --arch python:code_of_user.py:make", ["carries its own", "Leave out --arch"]),
        ("s.safetensors --classes 5", ["carries its own", "Leave out --classes"]),
        ("python:code_of_user.py:make --classes 5", ["expected 5 classes, got 10 logits"]),
        ("python:code_of_user.py:make --input-shape 1,4,4", ["(1, 4, 4), got (1, 8, 8)"]),
        ("python:code_of_user.py:make --normalise minst", ["unknown normalisation", "Did you mean 'mnist'?"]),
        ("python:code_of_user.py:make --normalise mnist --mean 0 --std 1", ["either --normalise or --mean and --std"]),
        ("python:code_of_user.py:make --mean 0.1,0.2 --std 1,1", ["one per channel of (1, 8, 8), got 2 values"]),
        ("python:code_of_user.py:make --mean 0.1 --std 0", ["normalisation std: expected positive values"]),
    ],
)
def test_refused(folder, name, phrases):
    damaged(name.split()[0])
    message = refused(f"{EVAL} {name}")
    for phrase in phrases:
        assert phrase in message
    assert not Path("PWNED").exists()


def test_the_trap_is_armed(folder):
    damaged("pickled.pt")
    with open("pickled.pt", "rb") as file:
        pickle.load(file)  # noqa: S301 - the point of the test: this file does run code
    assert Path("PWNED").is_dir()


def test_any_of_several_models(folder):
    assert "'absent.safetensors'" in refused("eval --model s.safetensors --model absent.safetensors --limit 20")


def test_models_that_name_no_data_or_different_data(folder):
    assert "expected --data" in refused("eval --model python:code_of_user.py:make --limit 20")
    from robustode.models import load_model, save_checkpoint

    save_checkpoint(load_model("s.safetensors"), "other.safetensors", data="mnist14", provenance={})
    message = refused("eval --model s.safetensors --model other.safetensors --limit 20")
    assert "s: digits, other: mnist14" in message


def test_untrained_model_is_stopped_before_the_first_attack(folder):
    done = robustode("eval --model python:code_of_user.py:make --data digits --limit 100")
    assert done.code == 2
    assert done.out.startswith("make: clean accuracy ")
    assert done.out.count("\n") == 1
    for phrase in ("no better than chance (10.0%)", "--mean/--std", "--allow-low-accuracy"):
        assert phrase in done.err
    assert not Path("runs").exists()
