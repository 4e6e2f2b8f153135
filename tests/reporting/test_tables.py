"""One table in its four forms."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from rich.console import Console

from robustode.reporting.tables import Table, escape_latex, to_rich


@pytest.fixture
def table():
    display = pd.DataFrame(
        {
            "model": ["a_1", "a_1", "b|c"],
            "attack": ["pgd", "worst", "pgd"],
            "ε = 8/255": ["95.0 % [91.0, 97.3]", "90.0 % [85.1, 93.4]", "incomplete (2)"],
        }
    )
    frame = pd.DataFrame({"model": ["a_1", "b,c"], "estimate": [0.1 + 0.2, None], "k": [1, 2]})
    return Table(
        name="robust_accuracy_linf",
        title="Robust accuracy",
        caption="n = 5 & 95 % of ε ≤ 1.",
        frame=frame,
        display=display,
        bold=frozenset({1}),
    )


def test_csv_holds_plain_numbers_with_all_digits(table):
    assert table.csv() == 'model,estimate,k\na_1,0.30000000000000004,1\n"b,c",,2\n'
    back = pd.read_csv(io.StringIO(table.csv()))
    assert back["estimate"].iloc[0] == 0.1 + 0.2


def test_markdown(table):
    assert table.markdown().splitlines() == [
        "### Robust accuracy",
        "",
        "| model | attack | ε = 8/255 |",
        "| --- | --- | --- |",
        "| a\\_1 | pgd | 95.0 % [91.0, 97.3] |",
        "| **a\\_1** | **worst** | **90.0 % [85.1, 93.4]** |",
        "| b\\|c | pgd | incomplete (2) |",
        "",
        "n = 5 & 95 % of ε ≤ 1.",
    ]


def test_latex_is_a_complete_environment(table):
    text = table.latex()
    assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table"),
    ]  # fmt: skip
    assert "\\usepackage{array,booktabs,graphicx}" in text.splitlines()[0]
    assert text.splitlines()[0].startswith("%")
    assert [text.count(f"\\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 2, 1]
    assert "\\label{tab:robust-accuracy-linf}" in text
    assert "\\caption{Robust accuracy. n = 5 \\& 95 \\% of \\ensuremath{\\varepsilon} \\ensuremath{\\leq} 1.}" in text
    assert "\\multicolumn{2}{@{}l}{\\emph{a\\_1}} \\\\" in text
    assert "    pgd & 95.0\\,\\% {[}91.0, 97.3{]} \\\\" in text
    assert "\\textbf{worst} & \\textbf{90.0\\,\\% {[}85.1, 93.4{]}} \\\\" in text
    assert "\\begin{tabular}{@{}lr@{}}" in text


def test_latex_has_as_many_cells_as_columns_and_balanced_braces(table):
    text = table.latex()
    assert text.count("{") == text.count("}")
    for line in (line for line in text.splitlines() if line.endswith("\\\\")):
        bare = line.replace("\\{", "").replace("\\}", "")
        assert bare.count("{") == bare.count("}"), line
        if "multicolumn" not in line:
            assert line.replace("\\&", "").count("&") == len(table.columns) - 1
    assert text.isascii()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b{c}$d#e~f^g", r"a\_b\{c\}\$d\#e\textasciitilde{}f\textasciicircum{}g"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("L∞ ≤ −1", r"L\ensuremath{\infty} \ensuremath{\leq} \ensuremath{-}1"),
        ("[0, 1]", "{[}0, 1{]}"),
    ],
)
def test_escape_latex(text, expected):
    assert escape_latex(text) == expected


def test_rich_shows_every_cell_at_full_width(table):
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(to_rich(table))
    text = console.file.getvalue()
    for wanted in ("Robust accuracy", "a_1", "b|c", "95.0 % [91.0,97.3]", "incomplete (2)", "n = 5 & 95 % of ε ≤ 1."):
        assert wanted in text
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(to_rich(table, caption=False))
    assert "n = 5" not in console.file.getvalue()


def test_rich_takes_no_markup_from_names(table):
    odd = Table(
        name="t", title="[bold]t", caption="", group=None,
        frame=pd.DataFrame(), display=pd.DataFrame({"model": ["[red]m[/red]"]}),
    )  # fmt: skip
    console = Console(width=60, file=io.StringIO(), color_system=None)
    console.print(to_rich(odd))
    assert "[red]m[/red]" in console.file.getvalue()
    assert "[bold]t" in console.file.getvalue()


def test_blocks_follow_the_group(table):
    assert [(heading, len(rows)) for heading, rows in table.blocks()] == [("a_1", 2), ("b|c", 1)]
    assert [bold for _, rows in table.blocks() for bold, _ in rows] == [False, True, False]
