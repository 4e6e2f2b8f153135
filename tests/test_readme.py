"""The README's commands and code run as they stand, in order, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("robustode ")]
    return [
        line for line in lines if "my_model.py" not in line
    ]  # tests/test_user_model.py makes that model and runs it


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def python(part: str) -> str:
    """The one block of Python code that has `part` in it."""
    (code,) = [block for block in blocks("python") if part in block]
    return code


@pytest.mark.slow
def test_commands(tmp_path):
    assert len(commands()) >= 10
    for line in commands():
        done = run([sys.executable, "-m", *shlex.split(line)], tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "runs/snode-digits+resnet-digits-digits-standard/report.html").is_file()
    assert (tmp_path / "runs/comparison/report.html").is_file()
    pytest.importorskip("datasets")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    words = [sys.executable, "-W", "error", "-c", python("load_dataset")]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([32, 1, 8, 8])" in done.stdout
    assert "torch.Size([1, 8, 8]) ClassLabel" in done.stdout


@pytest.mark.slow
def test_python(tmp_path):
    code = python("ro.evaluate")
    done = run([sys.executable, "-W", "error", "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    median, likely, rows = re.findall(r"[\d.]+", done.stdout.replace("dtype=torch.float64", ""))
    assert 0.1 < float(median) < 2
    assert 0.5 < float(likely) <= 1
    assert int(rows) >= 50 * 4


def test_doors_to_other_tools(tmp_path):
    code = python("FoolboxSensitivity")
    done = run([sys.executable, "-W", "error", "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    rates = [float(rate) for rate in re.findall(r"[01]\.\d*", done.stdout)]
    assert rates == sorted(rates)
    assert 0 <= rates[0] < rates[-1] <= 1


def test_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if "://" not in target:
            assert (ROOT / target).is_file(), target
