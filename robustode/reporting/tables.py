"""A table: plain numbers for machines, formatted cells for people, in CSV, Markdown, LaTeX and on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_LATEX = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    '"': "''",
    "Δ": r"\ensuremath{\Delta}",
    "α": r"\ensuremath{\alpha}",
    "ε": r"\ensuremath{\varepsilon}",
    "τ": r"\ensuremath{\tau}",
    "σ": r"\ensuremath{\sigma}",
    "θ": r"\ensuremath{\theta}",
    "∫": r"\ensuremath{\int}",
    "‖": r"\ensuremath{\|}",
    "²": r"\ensuremath{^2}",
    "∞": r"\ensuremath{\infty}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "×": r"\ensuremath{\times}",
    "±": r"\ensuremath{\pm}",
    "−": r"\ensuremath{-}",
    "–": "--",
    "—": "---",
    "½": r"\ensuremath{\frac12}",
    "’": "'",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """One table of a report.

    Attributes:
        name: file stem and LaTeX label.
        title: a few words.
        caption: what was measured, on what, and what an interval covers.
        frame: plain numbers in long form; proportions are fractions of 1. This is the CSV.
        display: formatted cells, all strings. This is the Markdown, LaTeX, HTML and terminal table.
        group: the column of `display` whose equal neighbours form one block; None for no blocks.
        bold: row numbers of `display` that carry the main result.
        prose: the last column of `display` if it holds sentences, which then break into lines.
    """

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    display: pd.DataFrame
    group: str | None = "model"
    bold: frozenset[int] = frozenset()
    prose: bool = False

    @property
    def columns(self) -> list[str]:
        """Columns of `display` other than `group`."""
        return [str(name) for name in self.display.columns if name != self.group]

    def blocks(self) -> Iterator[tuple[str | None, list[tuple[bool, list[str]]]]]:
        """Yield (heading or None, rows), a row being (bold, cells without the group's column)."""
        rows = [(i in self.bold, list(cells)) for i, cells in enumerate(self.display[self.columns].values.tolist())]
        if self.group is None:
            yield None, rows
            return
        if not rows:
            return
        headings = self.display[self.group].tolist()
        starts = [i for i in range(len(rows)) if i == 0 or headings[i] != headings[i - 1]]
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            yield headings[start], rows[start:end]

    def csv(self) -> str:
        """Return comma-separated plain numbers with all digits, empty where there is none, `inf` where unlimited."""
        return self.frame.to_csv(index=False, lineterminator="\n")

    def markdown(self) -> str:
        """Return a GitHub-flavoured table under its title, with the caption below."""
        head = [str(name) for name in self.display.columns]
        lines = [f"### {self.title}", "", _markdown_row(head), _markdown_row(["---"] * len(head))]
        for i, cells in enumerate(self.display.values.tolist()):
            escaped = [_escape_markdown(cell) for cell in cells]
            lines.append(_markdown_row([f"**{cell}**" for cell in escaped] if i in self.bold else escaped))
        return "\n".join([*lines, "", self.caption, ""])

    def latex(self) -> str:
        """Return a complete `table` environment that compiles as it stands under pdfLaTeX with UTF-8.

        It needs array, booktabs and, to shrink a table that is wider than the text, graphicx.
        """
        columns = self.columns
        width = len(columns)
        lines = [
            "% needs \\usepackage{array,booktabs,graphicx}",
            "\\begin{table}",
            "  \\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}",
            f"  \\caption{{{escape_latex(f'{self.title}. {self.caption}')}}}",
            f"  \\label{{tab:{self.name.replace('_', '-')}}}",
            "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"  \\begin{{tabular}}{{@{{}}{self._alignment()}@{{}}}}",
            "    \\toprule",
            _latex_row(columns, False),
        ]
        for heading, rows in self.blocks():
            lines.append("    \\midrule")
            if heading is not None:
                lines.append(f"    \\multicolumn{{{width}}}{{@{{}}l}}{{\\emph{{{escape_latex(heading)}}}}} \\\\")
            lines += [_latex_row(cells, bold) for bold, cells in rows]
        return "\n".join([*lines, "    \\bottomrule", "  \\end{tabular}}", "\\end{table}", ""])

    def _alignment(self) -> str:
        """Labels to the left, numbers to the right, sentences in lines of 0.6 of the text's width."""
        rest = len(self.columns) - 1 - self.prose
        return "l" + "r" * rest + (r">{\raggedright\arraybackslash}p{0.6\linewidth}" if self.prose else "")


def escape_latex(text: str) -> str:
    """Return text in which every character that LaTeX would take as a command, or lacks, is written out.

    A cell that starts with "[" would be read as the optional argument of the row end before it, so brackets are braced.
    """
    return "".join(_LATEX.get(char, "{[}" if char == "[" else "{]}" if char == "]" else char) for char in text)


def to_rich(table: Table, *, caption: bool = True) -> RichTable:
    """Return the table for a `rich` console: one section for each block, the caption below unless it is turned off."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    below = Text(table.caption) if caption else None
    out = RichTable(title=Text(table.title), caption=below, box=box.SIMPLE_HEAD, caption_justify="left")
    for i, name in enumerate(table.columns):
        out.add_column(Text(name), justify="left" if i == 0 else "right", overflow="fold")
    for heading, rows in table.blocks():
        out.add_section()
        if heading is not None:
            out.add_row(Text(heading, style="italic"))
        for bold, cells in rows:
            unbroken = (cell.replace(", ", ",") for cell in cells)  # a narrow terminal then breaks before the interval
            out.add_row(*map(Text, unbroken), style="bold" if bold else None)
    return out


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape_markdown(text: str) -> str:
    for char in "\\|*_`<":
        text = text.replace(char, f"\\{char}")
    return text


def _latex_row(cells: list[str], bold: bool) -> str:
    escaped = [escape_latex(cell).replace(r" \%", r"\,\%") for cell in cells]
    if bold:
        escaped = [f"\\textbf{{{cell}}}" if cell else "" for cell in escaped]
    return f"    {' & '.join(escaped)} \\\\"
