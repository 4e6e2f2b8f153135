"""`load_factory`: what it imports, and one clear error for everything that it cannot."""

from __future__ import annotations

import sys

import pytest

from robustode.errors import DataError, ModelError
from robustode.models.factory import load_factory


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_file_relative_to_the_current_directory(tmp_path):
    write(tmp_path / "sub/net.py", "def make(a, b=2):\n    return a + b\n")
    assert load_factory("python:sub/net.py:make")(40) == 42


def test_absolute_file_and_file_relative_to_a_card(tmp_path):
    write(tmp_path / "cards/net.py", "make = lambda: 'card'\n")
    assert load_factory(f"python:{tmp_path}/cards/net.py:make")() == "card"
    assert load_factory("python:net.py:make", base=tmp_path / "cards")() == "card"


def test_module_from_the_current_directory_and_installed_module(tmp_path):
    write(tmp_path / "mypackage_f/__init__.py", "")
    write(tmp_path / "mypackage_f/nets.py", "class Net:\n    @staticmethod\n    def small():\n        return 'small'\n")
    assert load_factory("python:mypackage_f.nets:Net.small")() == "small"
    assert load_factory("python:math:sqrt")(9) == 3


def test_file_can_import_its_neighbours_and_define_dataclasses(tmp_path):
    write(tmp_path / "neighbour_f.py", "VALUE = 7\n")
    write(
        tmp_path / "net.py",
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport neighbour_f\n"
        "@dataclass\nclass Config:\n    n: int = neighbour_f.VALUE\n",
    )
    assert load_factory("python:net.py:Config")().n == 7


def test_same_file_is_one_module_and_an_edited_file_is_a_new_one(tmp_path):
    write(tmp_path / "net.py", "class Net: pass\n")
    first = load_factory("python:net.py:Net")
    assert load_factory("python:net.py:Net") is first
    assert sys.modules[first.__module__].Net is first
    write(tmp_path / "net.py", "class Net:\n    edited = True\n")
    assert load_factory("python:net.py:Net").edited  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", ["net.py:make", "python:net.py", "python::make", "python:net.py:"])
def test_unreadable_spec(spec):
    with pytest.raises(ModelError, match=r"expected python:FILE.py:NAME or python:package.module:NAME"):
        load_factory(spec)


def test_missing_file_names_the_directory_looked_in(tmp_path):
    with pytest.raises(ModelError) as caught:
        load_factory("python:net.py:make")
    assert str(caught.value) == (
        f"model factory 'python:net.py:make': expected a file net.py in {tmp_path}, got no such file. "
        "Give the path relative to the current directory."
    )


def test_missing_module_and_error_class_of_the_caller():
    with pytest.raises(DataError, match="data factory 'python:nowhere_f:make': got an error on import: ModuleNotFound"):
        load_factory("python:nowhere_f:make", what="data factory", error=DataError)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('my own message')", "ValueError: my own message"),
        ("def make(:\n", "SyntaxError"),
        ("open('absent.bin')", "FileNotFoundError.*absent.bin"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_code_that_raises_becomes_the_error_and_leaves_no_module(tmp_path, code, message):
    write(tmp_path / "net.py", code)
    before = set(sys.modules)
    with pytest.raises(ModelError, match=f"got an error on import: {message}"):
        load_factory("python:net.py:make")
    assert not [name for name in set(sys.modules) - before if name.startswith("robustode_user_")]


def test_missing_attribute_lists_what_is_there(tmp_path):
    write(tmp_path / "net.py", "def build(): pass\ndef _hidden(): pass\n")
    with pytest.raises(ModelError, match="expected one of build, got no 'make' there"):
        load_factory("python:net.py:make")


def test_not_callable(tmp_path):
    write(tmp_path / "net.py", "make = 3\n")
    with pytest.raises(ModelError, match="expected something callable, got int 3"):
        load_factory("python:net.py:make")
