"""The pages of docs/: their commands and code run, what they show is printed, and what they name exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
import typer

import robustode
from robustode.audit.checks import CHECKS
from robustode.cli.main import app
from tests.pages import blocks, follow, lines, links, prose, shows

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
SLOW = {
    f"{name}.md" for name in ("index", "evaluate", "neural-ode", "data-set", "report", "protocols", "certify", "scale")
}
BUILDER = ROOT / ".venv-docs/bin/mkdocs"  # made by `make docs`


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def _marked(page: Path) -> Any:
    marks = [pytest.mark.slow] if page.name in SLOW else []
    return pytest.param(page, id=name_of(page), marks=marks)


@pytest.mark.parametrize("page", [_marked(page) for page in PAGES])
def test_page(page, tmp_path):
    follow(page, tmp_path)
    if page.name == "neural-ode.md":
        _what_the_page_says_of_its_node(tmp_path / "runs" / "node")


def _what_the_page_says_of_its_node(folder: Path) -> None:
    """The digits are those of one machine, but on each the audit lowers the number, through what is named there."""
    findings = json.loads((folder / "audit.json").read_text(encoding="utf-8"))["findings"]
    failed = {finding["check"]: finding["samples"] for finding in findings if finding["status"] == "fail"}
    gradients = {"gradient-fidelity", "solver-gradient", "transfer", "loss-diversity", "one-step", "more-effort"}
    assert {"batch-invariance", "black-box", *gradients} <= failed.keys()
    assert len(failed["transfer"]) >= 10
    table = pd.read_csv(folder / "tables" / "robust_accuracy_linf.csv")
    robust = table[table["eps"] == 0.1].set_index("attack")["robust"]
    assert robust.min() <= robust["pgd-linf"] - 10


def test_pages_show_and_run_something():
    guides = [page for page in PAGES if page not in REFERENCE]
    assert len(guides) == 10
    for page in guides:
        assert blocks(page, "sh") or blocks(page, "python"), page.name
        assert blocks(page, "text"), page.name


@pytest.mark.parametrize(
    ("shown", "holds"),
    [
        ("median 0.51 … robust 40.0 %", True),
        ("median 0.52 … robust 41.5 % [38.0,44.0]", True),
        ("robust 40.0 % … median 0.51", False),  # the other way round
        ("median 0.51 robust", False),  # something is left out without …
        ("robust 60.0 %", False),
        ("median 0.90", False),
        ("median 0.51 weak", False),
    ],
)
def test_what_a_page_shows_is_compared(shown, holds):
    printed = "  median   0.51 \n ───── \n\n robust 40.0 % [37.0,43.5]\n"
    if holds:
        shows(shown, printed)
    else:
        with pytest.raises(AssertionError, match="the page shows"):
            shows(shown, printed)


def test_digits_of_one_machine_are_not_compared_but_the_words_are():
    shows("robust 60.0 % [1.0,99.0]", "robust 40.0 % [37.0,43.5]", numbers=False)
    for other in ("weak 40.0 %", "robust 40.0 % 37", "40.0 % robust"):
        with pytest.raises(AssertionError, match="the page shows"):
            shows(other, "robust 40.0 % [37.0,43.5]", numbers=False)


def test_a_page_that_fails_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    for text, said in (
        ("```sh\nrobustode list nothing\n```\n", "unknown list"),
        ("```sh\nls\n```\n", "commands of robustode and python only"),
        ('```toml\nkey = "nothing reads it"\n```\n', "give a title"),
    ):
        page.write_text(text, encoding="utf-8")
        with pytest.raises(AssertionError, match=said):
            follow(page, tmp_path)


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"([\w/-]+\.md)\b", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == [name_of(page) for page in PAGES]


def headings(page: Path) -> set[str]:
    """The anchors of a page, as MkDocs makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles]
    return {re.sub(r"[\s-]+", "-", title) for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in links(page):
        file, _, anchor = target.partition("#")
        other = (page.parent / file).resolve() if file else page
        assert other in PAGES, target
        assert not anchor or anchor in headings(other), target


def commands() -> dict[str, click.Command]:
    """Every command of the command line by its words."""
    group: Any = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        found[name] = command
        found |= {f"{name} {inner}": one for inner, one in getattr(command, "commands", {}).items()}
    return found


def mentioned(page: Path) -> list[str]:
    """Command lines in blocks and in the text, and options that stand alone in it."""
    shown = [line for block in blocks(page, "sh") for line in lines(block)]
    return shown + re.findall(r"`((?:robustode |--)[^`]*)`", prose(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_exist(page):
    known = commands()
    everywhere = {option for command in known.values() for one in command.params for option in one.opts}
    for line in mentioned(page):
        used = re.findall(r"(?<=\s)--[a-z][a-z-]*|^--[a-z][a-z-]*", line)
        if not line.startswith("robustode "):
            assert set(used) <= everywhere, line
            continue
        words = line.split()[1:]
        command = known.get(" ".join(words[:2])) or known.get(words[0])
        assert command is not None, line
        assert set(used) <= {option for one in command.params for option in one.opts}, line


def resolve(dotted: str) -> Any:
    """Import what a dotted name stands for; a module comes before a function of its name, as in the reference."""
    parts = dotted.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_exist(page):
    said = re.findall(r"`((?:ro|robustode)(?:\.\w+)+)", prose(page))
    for name in said + re.findall(r"^::: (\S+)$", prose(page), flags=re.MULTILINE):
        resolve(re.sub(r"^ro\.", "robustode.", name))


def documented() -> dict[str, Any]:
    """Everything on the pages of the reference, by its dotted name."""
    names = [name for page in REFERENCE for name in re.findall(r"^::: (\S+)$", prose(page), flags=re.MULTILINE)]
    assert len(set(names)) == len(names)
    return {name: resolve(name) for name in names}


@pytest.mark.parametrize(
    "module", ["attacks", "audit", "data", "sensitivity", "solvers.observe", "uncertainty", "certificates"]
)
def test_the_reference_has_every_public_name(module):
    public = set(importlib.import_module(f"robustode.{module}").__all__)
    prefix = f"robustode.{module}."
    assert {name.split(".")[-1] for name in documented() if name.startswith(prefix)} == public


def test_the_reference_has_the_front_door():
    written = {
        name.split(".")[-1] for name in re.findall(r"^::: (\S+)$", prose(DOCS / "reference/index.md"), re.MULTILINE)
    }
    assert written == {name for name in robustode.__all__ if not inspect.ismodule(getattr(robustode, name))}


@pytest.mark.parametrize("module", ["evaluation.records", "evaluation.statistics", "reporting.compare"])
def test_the_reference_has_every_function_of(module):
    place = ROOT / "robustode" / f"{module.replace('.', '/')}.py"
    tree = ast.parse(place.read_text(encoding="utf-8"))
    made = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    prefix = f"robustode.{module}."
    written = {name.removeprefix(prefix) for name in documented() if name.startswith(prefix)}
    assert written == {name for name in made if not name.startswith("_")}


def test_what_is_in_the_reference_says_what_it_is():
    for name, found in documented().items():
        if inspect.isclass(found) or inspect.isfunction(found):
            assert found.__doc__, name
            assert found.__doc__.split("\n\n")[0].rstrip().endswith((".", ":")), name


def test_every_check_is_in_the_table_of_checks():
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \| (cheap|full) \|$", prose(DOCS / "report.md"), flags=re.MULTILINE)
    assert rows == [(check.id, check.title, "cheap" if check.cheap else "full") for check in CHECKS]


class Loaded(HTMLParser):
    """What a page loads by itself: scripts, style sheets, images, frames."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        loads = {"script": "src", "img": "src", "iframe": "src", "source": "src"}
        if tag in loads:
            self.addresses.append(values.get(loads[tag]) or "")
        elif tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(values.get("href") or "")


@pytest.mark.skipif(not BUILDER.exists(), reason="the documentation's environment is not there: make docs")
def test_the_site_is_built_and_needs_no_network(tmp_path):
    command = [str(BUILDER), "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    built = sorted(tmp_path.rglob("*.html"))
    assert {page.relative_to(tmp_path).with_suffix(".md").as_posix() for page in built} - {"404.md"} == {
        name_of(page) for page in PAGES
    }
    for page in built:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.addresses
        for address in loaded.addresses:
            assert not re.match(r"(https?:)?//", address), f"{page.name} loads {address}"
    for page in (tmp_path / "reference").glob("*.html"):  # a module hides the function of its name
        assert "doc-module" not in page.read_text(encoding="utf-8"), page.name
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(@import|url\()[\s\"']*(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name
    assert "<math" in (tmp_path / "mathematics.html").read_text(encoding="utf-8")
    assert "SensitivityAttack" in (tmp_path / "reference/attacks.html").read_text(encoding="utf-8")
