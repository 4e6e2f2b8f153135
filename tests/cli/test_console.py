"""What the terminal shows: every table readable at 80 columns, every sentence once, no bar in a pipe."""

from __future__ import annotations

import io
import math
import re
import sys

import pandas as pd
import pytest

from robustode.cli import console
from robustode.reporting.tables import Table


def table(name: str, caption: str, cells: list[str], title: str = "Robust accuracy, L2") -> Table:
    display = pd.DataFrame(
        [{"model": "m", "attack": "one-step-singular-linf", **{f"c{i}": c for i, c in enumerate(cells)}}]
    )
    return Table(name=name, title=title, caption=caption, frame=pd.DataFrame({"x": [1.0]}), display=display)


def shown(capsys, monkeypatch, columns: int, *arguments) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    console.show_tables(*arguments)
    return capsys.readouterr().out


WIDE = ["100.0 % [96.3, 100.0]", "0.101 [0.089, ∞]", "1,200 (1,180)", "incomplete (3)", "not reached [0, ∞]"]


def test_wide_terminal_shows_intervals(capsys, monkeypatch):
    text = shown(capsys, monkeypatch, 160, [table("a", "One.", WIDE)])
    for cell in ("100.0 % [96.3,100.0]", "0.101 [0.089,∞]", "1,200 (1,180)", "incomplete (3)", "not reached [0,∞]"):
        assert cell in text
    assert "narrow" not in text


def test_narrow_terminal_leaves_out_what_stands_beside_a_number_and_says_so(capsys, monkeypatch):
    text = shown(capsys, monkeypatch, 80, [table("a", "One.", WIDE)])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if "one-step-singular-linf" in line)
    assert re.split(r"\s{2,}", row.strip())[:5] == [
        "one-step-singular-linf",
        "100.0 %",
        "0.101",
        "1,200",
        "incomplete (3)",
    ]
    assert "What stands in brackets is left out: the terminal is narrow. See tables/" in text


def test_a_summary_comes_last_without_a_caption(capsys, monkeypatch):
    tables = [table("a", "One sentence.", ["1.0 %"])]
    text = shown(capsys, monkeypatch, 80, tables, table("s", "Never shown.", WIDE, title="Summary"))
    assert "Never shown" not in text
    assert "narrow" not in text
    assert text.index("One sentence") < text.index("Summary")


def test_every_sentence_once():
    brackets = "Brackets: 95 % intervals. They cover x."
    tables = [
        table("a", f"Worst case. {brackets} Norm: L∞. Data: d (n = 3).", [], "Robust accuracy, L∞"),
        table("b", f"Worst case. {brackets} Norm: L2. Data: d (n = 3).", [], "Robust accuracy, L2"),
        table("c", f"Median. {brackets} Data: d (n = 3).", [], "Distance, L2"),
        table("d", "Data: d (n = 3).", [], "Cost"),
    ]
    assert console.notes(tables) == [
        "Robust accuracy. Worst case. Brackets: 95 % intervals. They cover x. Data: d (n = 3).",
        "Distance. Median.",
    ]


def test_json_has_no_number_that_json_lacks(capsys):
    console.emit({"a": [math.inf, math.nan, 1.5, (2, "ε")], 3: None})
    assert (
        capsys.readouterr().out
        == '{\n  "a": [\n    null,\n    null,\n    1.5,\n    [\n      2,\n      "ε"\n    ]\n  ],\n  "3": null\n}\n'
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_bar_in_a_pipe_nor_for_machines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with console.progress(False) as bar:
        assert bar is None
    monkeypatch.setattr(sys, "stderr", Terminal())
    with console.progress(True) as bar:
        assert bar is None


@pytest.mark.parametrize("terminal", [True, False])
def test_bar_on_a_terminal_leaves_redirected_output_alone(monkeypatch, terminal):
    """With `robustode eval > file` the bar is on the terminal, and the file has what would be printed."""
    out, err = Terminal() if terminal else io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress(False) as bar:
        assert bar is not None
        bar.add_task("attacks", total=3)
        console.say("clean accuracy")
    assert "attacks" in err.getvalue()
    assert ("clean accuracy" in out.getvalue()) is not terminal
    assert ("clean accuracy" in err.getvalue()) is terminal
