"""The script that lies beside the stored points, run as a reviewer would who has torch and safetensors only."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from robustode.evaluation.rundir import read_run
from robustode.evaluation.runner import execute
from robustode.evaluation.shards import read_header, save_tensors
from robustode.evaluation.worst_case import worst_case
from tests.evaluation.problem import affine, plan_of

ATTACKS = {"attacks": "sensitivity", "norms": ["l2", "linf"], "budgets": {"l2": [0.05, 0.2], "linf": [0.02, 0.05]}}
ALONE = """
import sys

class NotHere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "robustode":
            raise ImportError("the evaluation's package is not at hand")


assert "robustode" not in sys.modules
sys.meta_path.insert(0, NotHere())
"""
USER = """
import torch
from torch import nn


class Mine(nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0])
        self.linear.weight.data.copy_(weight)
        self.linear.bias.data.copy_(bias)

    def forward(self, x):
        assert not self.training and not torch.is_grad_enabled() and len(x) == 1
        return self.linear(x.flatten(1))


def make():
    return Mine(*torch.load("weights.pt"))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    model, data = affine()
    folder = tmp_path_factory.mktemp("finished")
    execute(plan_of(model, data, **ATTACKS), folder / "run", command="test")
    (folder / "user").mkdir()
    (folder / "user" / "mine.py").write_text(USER)
    torch.save((model.weight.detach(), model.bias.detach()), folder / "user" / "weights.pt")
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return read_run(tmp_path / "run")


def alone(run, *words):
    """Run the script in an interpreter of its own, which cannot import the package."""
    user = run.path.parent / "user"
    (user / "mine.py").write_text(ALONE + USER)
    command = [sys.executable, "-I", str(run.path / "adversarials" / "verify.py"), *words]
    return subprocess.run(command, cwd=user, capture_output=True, text=True, timeout=60, check=False)


def here(run, capsys, monkeypatch, *words, cwd=None):
    """Run the script in this interpreter; return (exit status or message, what it printed)."""
    path = run.path / "adversarials" / "verify.py"
    monkeypatch.chdir(run.path.parent / "user" if cwd is None else cwd)
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("mine", None)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end, torch.enable_grad():
        runpy.run_path(str(path), run_name="__main__")
    return end.value.code, capsys.readouterr().out


def rewrite(run, change, norm="l2", **header):
    path = run.path / "adversarials" / f"Affine-{norm}.safetensors"
    tensors, head = load_file(path), read_header(path)
    change(tensors)
    save_tensors(tensors, path, head | header)


TAMPERED = [
    lambda tensors: tensors["x_adv"][3].copy_(tensors["x"][3]),  # not adversarial
    lambda tensors: tensors["distance"][3].mul_(0.99),  # further away than it says
    lambda tensors: tensors["label"][3].copy_((tensors["label"][3] + 1) % 3),  # the clean answer is not the label
    lambda tensors: tensors["x_adv"][3].add_(3.0),  # outside the box
]


def test_it_is_short_and_stands_alone(run):
    text = (run.path / "adversarials" / "verify.py").read_text()
    assert len(text.splitlines()) <= 60
    assert max(map(len, text.splitlines())) <= 120
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"importlib", "json", "os", "sys", "pathlib", "torch", "safetensors"}
    assert "adversarials/verify.py" in run.meta["files"]


def test_it_says_what_the_run_says(run):
    done = alone(run, "mine.py:make")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "Affine, l2: 28 of 28 stored points hold"
    assert lines[4] == "Affine, linf: 28 of 28 stored points hold"
    shown = [float(line.split()[-1]) for line in lines if line.startswith("  eps")]
    expected = []
    for norm, radii in ATTACKS["budgets"].items():
        case = worst_case(run.records, run.meta["models"][0], norm)
        expected += [28 / 30, *(float(case.robust(eps).mean()) for eps in radii)]
    assert shown == pytest.approx(expected, abs=1e-4)
    assert shown[2] < shown[1] < shown[0]


def test_alone_it_finds_a_point_that_was_changed(run):
    rewrite(run, TAMPERED[0])
    done = alone(run, "mine.py:make")
    assert (done.returncode, done.stderr) == (1, "")
    assert "Affine, l2: 27 of 28 stored points hold" in done.stdout
    assert "Affine, linf: 28 of 28 stored points hold" in done.stdout


@pytest.mark.parametrize("tamper", TAMPERED)
def test_one_point_that_was_changed_is_found(run, capsys, monkeypatch, tamper):
    assert here(run, capsys, monkeypatch, "mine.py:make")[0] == 0
    rewrite(run, tamper)
    status, out = here(run, capsys, monkeypatch, "mine.py:make")
    assert status == 1
    assert "Affine, l2: 27 of 28 stored points hold" in out


def test_a_module_in_the_current_directory_and_a_file_elsewhere(run, capsys, monkeypatch):
    assert here(run, capsys, monkeypatch, "mine:make")[0] == 0
    shutil.copy("weights.pt", run.path)
    assert here(run, capsys, monkeypatch, "../user/mine.py:make", cwd=run.path)[0] == 0


def test_another_model_does_not_pass(run, capsys, monkeypatch):
    file = run.path.parent / "user" / "weights.pt"
    weight, bias = torch.load(file)
    torch.save((weight, bias + torch.tensor([0.05, 0.0, 0.0])), file)
    status, out = here(run, capsys, monkeypatch, "mine.py:make")
    assert status == 1
    assert "28 of 28" not in out


def test_points_of_several_models_want_a_label(run, capsys, monkeypatch):
    path = run.path / "adversarials" / "Affine-l2.safetensors"
    save_tensors(load_file(path), path.with_name("other-l2.safetensors"), read_header(path) | {"model": "other"})
    for words in (("mine.py:make",), ("mine.py:make", "absent"), (), ("mine.py:make", "other", "more")):
        said, out = here(run, capsys, monkeypatch, *words)
        assert said.startswith("Re-scores the adversarials")
        assert said.endswith("LABEL: one of Affine, other")
        assert out == ""
    status, out = here(run, capsys, monkeypatch, "mine.py:make", "other")
    assert status == 0
    assert out.startswith("other, l2: 28 of 28")
    assert "linf" not in out


def test_a_random_model_is_asked_as_often_as_in_the_run(run, capsys, monkeypatch):
    rewrite(run, lambda tensors: None, eot=3)
    user = run.path.parent / "user" / "mine.py"
    user.write_text(USER.replace("    def forward(self, x):\n", "    def forward(self, x):\n        print('pass')\n"))
    assert here(run, capsys, monkeypatch, "mine.py:make")[1].count("pass") == 3 * 2 * 28 + 2 * 28


def test_no_sample_was_broken(tmp_path, capsys, monkeypatch):
    model, data = affine()
    made = execute(
        plan_of(model, data, attacks="fgm-l2", budgets={"l2": [1e-6]}), tmp_path / "none" / "run", command="test"
    )
    (tmp_path / "none" / "mine.py").write_text("import torch\ndef make():\n    return torch.nn.Identity()\n")
    status, out = here(made, capsys, monkeypatch, "mine.py:make", cwd=tmp_path / "none")
    assert status == 0
    assert out.splitlines()[0] == "Affine, l2: 0 of 0 stored points hold"
    assert out.splitlines()[2].split() == ["eps", "1e-06", "robust", "accuracy", "0.9333"]
