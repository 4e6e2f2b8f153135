"""What holds for every command: help, exit status, errors of the file system, output that machines can read."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from typer.main import get_command

import robustode
from robustode.cli import listing
from robustode.cli.main import app
from tests.cli.command import refused, works
from tests.cli.command import robustode as command

COMMANDS = [
    "eval",
    "run",
    "train",
    "deploy",
    "generate",
    "report",
    "audit",
    "verify",
    "sensitivity",
    "uncertainty",
    "certify",
    "list",
]
COMMANDS += ["data fetch"]


def test_the_list_of_commands_is_complete():
    group = get_command(app)
    assert set(group.commands) == {name.split()[0] for name in COMMANDS}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_describes_every_option(name):
    text = works(f"{name} --help", columns=80).out
    assert f"Example: robustode {name} " in " ".join(text.split())
    assert "--json" in text
    group = get_command(app)
    for word in name.split():
        group = group.commands[word]  # type: ignore[attr-defined]
    for parameter in group.params:
        assert getattr(parameter, "help", None) or parameter.name == "help"
    assert max(map(len, text.splitlines())) <= 80


def test_summary_of_every_command_is_whole():
    text = works("--help", columns=80).out
    assert "..." not in text.partition("Commands:")[2]


def test_version():
    assert works("--version").out == f"robustode {robustode.__version__}\n"


def test_module_and_no_command():
    done = subprocess.run([sys.executable, "-m", "robustode"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert (done.stdout + done.stderr).startswith("Usage: robustode [OPTIONS] COMMAND")


def fail_with(monkeypatch, error: BaseException) -> None:
    def rows():
        raise error

    monkeypatch.setitem(listing.LISTS, "data", rows)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_place_that_cannot_be_written(monkeypatch, tmp_path, number):
    monkeypatch.chdir(tmp_path)
    fail_with(monkeypatch, OSError(number, os.strerror(number), "runs/x"))
    message = refused("list data")
    assert message.startswith(f"cannot write 'runs/x': {os.strerror(number)}.")


def test_no_space_for_safetensors(monkeypatch, tmp_path):
    from safetensors import SafetensorError

    monkeypatch.chdir(tmp_path)
    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    fail_with(monkeypatch, SafetensorError(text))
    assert "No space left on device" in refused("list data")


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError(errno.ENOENT, "no such file"), OSError("unknown")])
def test_other_exceptions_are_not_swallowed(monkeypatch, error):
    fail_with(monkeypatch, error)
    with pytest.raises(type(error)) as caught:
        command("list data")
    assert caught.value is error


def test_ctrl_c_anywhere(monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    done = command("list data")
    assert (done.code, done.out, done.err) == (130, "", "interrupted\n")


def test_a_folder_that_cannot_be_written(folder, monkeypatch):
    import tempfile

    def denied(**options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    for line in (
        "eval --model s.safetensors --out new/x",
        "generate --model s.safetensors --attack sensitivity-l2 --out new/x",
        "train snode --data digits --out new/x.safetensors",
        "uncertainty --model s.safetensors --out new/x",
        "certify --model s.safetensors --out new/x",
        "sensitivity --model s.safetensors --out new/x.svg",
    ):
        message = refused(line)
        assert "expected a folder that can be written" in message
        assert "Permission denied" in message


@pytest.mark.parametrize("what", ["models", "attacks", "suites", "evaluations", "data", "bounds"])
def test_list(what):
    rows = works(f"list {what} --json").json[what]
    assert rows
    text = works(f"list {what}", columns=80).out
    for row in rows:
        assert any(line.split()[0] == row["name"] for line in text.splitlines() if line.strip())
    assert max(map(len, text.splitlines())) <= 80


def test_text_that_the_terminal_cannot_show(monkeypatch):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    line = [sys.executable, "-m", "robustode", "list", "data"]
    done = subprocess.run(line, capture_output=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0
    assert b"1?8?8" in done.stdout
