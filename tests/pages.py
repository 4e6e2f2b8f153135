"""Markdown pages as programs: the files that a page shows are written, its commands and code run in order, in process.

A fenced block is one of: a file (```python title="my_model.py"), commands (```sh), code (```python), or what the block
before it printed (```text). In the last, … stands for words left out, and numbers need be near, not equal; with a title
they may be any, as after a training that no two kinds of machine do alike.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch

from tests.cli.command import robustode

_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', flags=re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")
_STATUS = re.compile(r"# exits with status (\d)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page; `title` is the file that it is, or ""."""

    language: str
    title: str
    text: str


def blocks(page: Path, language: str = "") -> list[Block]:
    """The fenced blocks of a page, of one language if given."""
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    all_ = [Block(language=kind, title=title, text=text) for kind, title, text in found]
    return [block for block in all_ if language in ("", block.language)]


def lines(block: Block) -> list[str]:
    """The command lines of a block; one that ends in a backslash goes on in the next."""
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """The targets of the links of a page that lead to other files or headings."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in target]


@contextlib.contextmanager
def place(folder: Path):
    """Be in a folder, on one thread, without the real image sets; modules from there are forgotten afterwards."""
    threads, before = torch.get_num_threads(), set(sys.modules)
    environment = {key: value for key, value in os.environ.items() if key != "ROBUSTODE_DATA"}
    torch.set_num_threads(1)
    try:
        with (
            contextlib.chdir(folder),
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.object(sys, "path", [str(folder), *sys.path]),
            torch.random.fork_rng(devices=[]),
        ):
            yield
    finally:
        torch.set_num_threads(threads)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]


def run(line: str) -> str:
    """Run a command line that must end as its comment says, else with status 0, and return what it printed."""
    said = _STATUS.search(line)
    program, *words = shlex.split(line, comments=True)
    if program == "python":
        return execute(Path(words[0]).read_text(encoding="utf-8"), *words)
    assert program == "robustode", f"a page shows commands of robustode and python only, got: {line}"
    done = robustode(shlex.join(words))
    assert done.code == int(said[1] if said else 0), f"{line}\n{done.out}\n{done.err}"
    return done.out + done.err


def execute(code: str, *arguments: str) -> str:
    """Run code as a script, warnings being errors, and return what it printed."""
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        mock.patch.object(sys, "argv", list(arguments) or ["-c"]),
        warnings.catch_warnings(action="error"),
    ):
        exec(compile(code, arguments[0] if arguments else "page", "exec"), {"__name__": "__main__"})
    return out.getvalue()


def follow(page: Path, folder: Path) -> None:
    """Do what a page says, in an empty folder; raise `AssertionError` where a command fails or prints other words."""
    printed = ""
    with place(folder):
        for block in blocks(page):
            if block.language == "text":
                shows(block.text, printed, numbers=not block.title)
            elif block.title:
                Path(block.title).parent.mkdir(parents=True, exist_ok=True)
                Path(block.title).write_text(block.text, encoding="utf-8")
            elif block.language == "sh":
                printed = "".join(run(line) for line in lines(block))
            else:
                assert block.language == "python", f"{page.name}: nothing reads a {block.language} block: give a title"
                printed = execute(block.text)


def shows(shown: str, printed: str, numbers: bool = True) -> None:
    """Raise `AssertionError` unless the words of `shown`, between the …, come in this order in `printed`; with
    `numbers`, unless numbers are near, too."""
    have, start = _words(printed), 0
    for part in shown.split("…"):
        want = _words(part)
        ends = (k for k in range(start, len(have) - len(want) + 1) if _near(want, have[k : k + len(want)], numbers))
        found = next(ends, None)
        assert found is not None, f"the page shows\n{part}\nwhere the output is\n{printed}"
        start = found + len(want)


def _words(text: str) -> list[str]:
    return re.sub(r"─+", "─", text).split()


def _near(want: list[str], have: list[str], numbers: bool) -> bool:
    return all(_same(one, other, numbers) for one, other in zip(want, have, strict=True))


def _same(one: str, other: str, numbers: bool) -> bool:
    if one == other:
        return True
    near = not numbers or all(_close(a, b) for a, b in zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=False))
    return _NUMBER.sub("#", one) == _NUMBER.sub("#", other) and near


def _close(shown: str, printed: str) -> bool:
    """Counts and percentages (at most one decimal) agree within 3 or a fifth, other numbers within 0.02 or a third."""
    a, b = (float(text.replace(",", "")) for text in (shown, printed))
    coarse = re.fullmatch(r"[\d,]+(\.\d)?", shown)
    return abs(a - b) <= (max(3.0, 0.2 * a) if coarse else max(0.02, a / 3))
