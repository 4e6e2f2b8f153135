"""Lines of keys in TOML: every key that tomllib finds has one, and it is the right one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from robustode.toml_lines import key_lines, line_of, place

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "attacks").rglob("*.toml"), *(ROOT / "evaluations").glob("*.toml"), ROOT / "pyproject.toml"])

HARD = '''# models = 1
title = "a # no comment, models = ['x']"   # models = 2
"quoted key" = 'C:\\' # "
'also = quoted'.inner."\\u0061" = 1
text = """
models = 3
[[models]] \\"""
x = \\""""
raw = \'\'\'
[budgets]\'\'\'\'
data = 1979-05-27 07:32:00
empty = []
none = {}
deep = [ [1, 2],
  # a comment, with a comma
  [{ a = [3,
    4], b.c = "}" }, # ]
    5],
]

[budgets]
linf = [
  0.1,

  "8/255", # two
]
[[models]]
model = "a"
[[models]]
model = "b" # the second
[models.inner]
x = [1,
2]
[[models.inner.rows]]
y = 1
[[models.inner.rows]]
y = 2
[[models]]
[a.b.c]
d = -inf
'''


def paths(value, path=()):
    """Every key and element of a document."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_key_of_a_shipped_file_has_a_line_where_it_is_written(path):
    text = path.read_text()
    lines = key_lines(text)
    assert set(lines) == set(paths(tomllib.loads(text)))
    for key, line in lines.items():
        named = next(part for part in reversed(key) if isinstance(part, str))
        if key[-1] == named:
            assert named in text.splitlines()[line - 1]


def test_hard_cases():
    lines, rows = key_lines(HARD), HARD.splitlines()
    assert set(lines) == set(paths(tomllib.loads(HARD)))
    assert rows[lines["budgets",] - 1] == "[budgets]"
    assert rows[lines["budgets", "linf", 1] - 1] == '  "8/255", # two'
    assert rows[lines["models", 1, "model"] - 1] == 'model = "b" # the second'
    assert rows[lines["models", 1, "inner", "x", 1] - 1] == "2]"
    assert rows[lines["models", 1, "inner", "rows", 1, "y"] - 1] == "y = 2"
    assert lines["models",] == lines["models", 0] == lines["models", 0, "model"] - 1
    assert rows[lines["models", 2]] == "[a.b.c]"
    assert rows[lines["deep", 1, 0, "a", 1] - 1].startswith("    4]")
    assert rows[lines["deep", 1, 1] - 1] == "    5],"
    assert rows[lines["deep", 1, 0, "b", "c"] - 1].startswith("    4]")
    assert rows[lines["data",] - 1].startswith("data")


def test_windows_line_ends():
    assert key_lines("a = 1\r\n\r\nb = [\r\n1]\r\n") == {("a",): 1, ("b",): 3, ("b", 0): 4}


def test_the_nearest_thing_that_a_file_has(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("a = 1\n\nmodels = ['x', 'y']\n")
    assert line_of(path, ("models", 1, "bounds", 0)) == 3
    assert place(path, ("models",)) == f"{path}, line 3"
    assert place(path, ("absent", 3)) == str(path)
    path.write_text("a = [1\n")
    assert place(path, ("a",)) == str(path)  # broken: tomllib has said where
    assert place(tmp_path / "gone.toml", ("a",)) == str(tmp_path / "gone.toml")
