"""The command line in this process: what it says, how it exits, and what it leaves behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from robustode.cli.main import main


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)


def robustode(line: str, columns: int | None = None) -> Done:
    """Run `robustode LINE` as a shell would, in the current directory, its output going to a pipe."""
    words = shlex.split(line)
    out, err = io.StringIO(), io.StringIO()
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    environment |= {} if columns is None else {"COLUMNS": str(columns)}
    code: Any = None
    with (
        mock.patch.object(sys, "argv", ["robustode", *words]),
        mock.patch.dict(os.environ, environment, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main(words)
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Done(code=code, out=out.getvalue(), err=err.getvalue())


def works(line: str, columns: int | None = None) -> Done:
    """Run a command that must succeed, silent on stderr."""
    done = robustode(line, columns)
    assert (done.code, done.err) == (0, ""), f"{line}\n{done.out}\n{done.err}"
    return done


def refused(line: str, said: str = "") -> str:
    """Run a command that must be refused, and return its message.

    One line on stderr, exit status 2, nothing but `said` on stdout, nothing new or changed in the current directory.
    """
    before = tree()
    done = robustode(line)
    assert done.code == 2, f"{line}\n{done.out}\n{done.err}"
    assert done.err.startswith("error: ")
    assert done.err.endswith("\n")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert done.out == said
    assert tree() == before
    return done.err.removeprefix("error: ").rstrip("\n")


def tree() -> dict[str, int]:
    """Every path below the current directory, with the time of its last change."""
    places = (place for place in Path().rglob("*") if "__pycache__" not in place.parts)
    return {str(place): place.stat().st_mtime_ns if place.is_file() else 0 for place in places}
