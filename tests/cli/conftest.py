"""Checkpoints trained once for all tests of the command line, and a folder that has them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from robustode.data import load_data
from robustode.models import save_checkpoint
from robustode.training import build, fit, recipe
from tests.cli.command import works

CODE = """
import torch
from torch import nn


def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def pair():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            return self.linear(x.flatten(1)), x

    return Two()


def number():
    return 3


def broken():
    raise ValueError("no luck")


def unpaired():
    return torch.rand(30, 1, 8, 8)


def raises(model, x, y, *, norm, eps, generator, often: int = 3):
    raise RuntimeError("out of luck")
"""


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Small problems are faster on one thread, and a process that is interrupted then has as many as this one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder with `snode.safetensors` (trained by the command) and `layered.safetensors` (by the library)."""
    folder = tmp_path_factory.mktemp("trained")
    works(f"train snode --data digits --set epochs=2 --set steps=10 --out {folder / 'snode.safetensors'}")
    train, test = load_data("digits", split="train"), load_data("digits", split="test")
    chosen = recipe("layered", "digits").overrides(epochs=4)
    model = build(chosen, train, 0)
    accuracy = fit(model, train, recipe=chosen, test=test).test_accuracy
    assert accuracy is not None
    assert accuracy > 0.9
    save_checkpoint(model, folder / "layered.safetensors", data="digits", provenance={"accuracy": accuracy})
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch) -> Path:
    """The current directory: new, with s.safetensors, l.safetensors, code.py and no image sets to find."""
    shutil.copy(trained / "snode.safetensors", tmp_path / "s.safetensors")
    shutil.copy(trained / "layered.safetensors", tmp_path / "l.safetensors")
    (tmp_path / "code_of_user.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTODE_DATA", raising=False)
    torch.manual_seed(0)
    return tmp_path
