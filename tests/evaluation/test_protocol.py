"""Protocols: what a file or the flags may say, and every mistake in them."""

from __future__ import annotations

import pytest

from robustode.errors import ProtocolError
from robustode.evaluation.protocol import OUTPUTS, build_protocol, digest, protocol_names, read_protocol
from robustode.evaluation.study import is_study
from tests.evaluation.problem import refused

TEXT = """
title = "mine"
data = "digits"
limit = "first:20"
attacks = "minimal-l2"
also = ["fgm-l2"]
seed = 3
models = ["zoo:a", { model = "b.pt", arch = "python:net.py:make", bounds = [0, 255], label = "B" }]

[budgets]
l2 = [1, "1/4", 0.5]
linf = "8/255,4/255"
"""


def test_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    protocol = read_protocol(str(path))
    assert [entry.model for entry in protocol.models] == ["zoo:a", "b.pt"]
    assert protocol.models[0].options() == {}
    assert protocol.models[1].options() == {"arch": "python:net.py:make", "bounds": (0.0, 255.0)}
    assert protocol.budgets == {"l2": (0.25, 0.5, 1.0), "linf": (4 / 255, 8 / 255)}
    assert (protocol.limit, protocol.seed, protocol.shard) == ("first:20", 3, 500)
    assert (protocol.audit, protocol.outputs) == ("cheap", OUTPUTS)
    assert protocol.base == str(tmp_path)
    again = build_protocol(protocol.model_dump())
    assert again.model_dump() == protocol.model_dump()


def test_files_beside_the_protocol_come_first(tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").touch()
    protocol = build_protocol({"models": ["a.safetensors"], "base": str(tmp_path)})
    assert protocol.near("a.safetensors") == str(tmp_path / "a.safetensors")
    assert protocol.near("b.safetensors") == "b.safetensors"
    monkeypatch.chdir(tmp_path)
    assert build_protocol({"models": ["a.safetensors"]}).near("a.safetensors") == "a.safetensors"


@pytest.mark.parametrize("name", [name for name in protocol_names() if not is_study(name)])
def test_shipped_protocols_are_valid(name):
    protocol = read_protocol(name)
    assert protocol.title
    assert protocol.data or name == "compare"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"models": ["a"], "atacks": "x"},
            "unknown key of protocol: expected 'attacks' or another (22 names)",
        ),
        ({"models": ["a"], "atacks": "x"}, "got 'atacks'. Did you mean 'attacks'?"),
        ({"models": [{"label": "a"}]}, "protocol: models.0.model: expected a value, got none"),
        ({"models": "a"}, "protocol: models: expected a list, got 'a'"),
        ({"models": ["a"], "audit": "chep"}, "audit: expected one of cheap, full, none, got 'chep'. Did you mean"),
        ({"models": ["a"], "transfer": ["b"]}, 'transfer: expected none, as audit "cheap" does not try other models'),
        ({"models": ["a"], "outputs": ["page"]}, "outputs.0: expected 'tables', 'figures', 'report' or 'adversarials'"),
        ({"models": ["a"], "limit": 1.5}, "limit: expected a positive whole number, or first:N, got '1.5'"),
        ({"models": ["a"], "seed": True}, "seed: expected a whole number, got True"),
        ({"models": ["a"], "allow_low_accuracy": 1}, "allow_low_accuracy: expected true or false, got 1"),
        ({"models": [{"model": "a", "bounds": [1, 0]}]}, "models.0.bounds: expected (lo, hi) with lo < hi"),
        ({"models": [{"model": "a", "archh": "b"}]}, "unknown key of models: expected one of arch, bounds, classes"),
        ({"models": ["a"], "seed": -1}, "seed: expected a number ≥ 0, got -1"),
        ({"models": ["a"], "seed": 2**63}, "seed: expected a number < 9223372036854775808"),
        ({"models": ["a"], "shard": 0}, "shard: expected a number ≥ 1, got 0"),
        ({"models": ["a"], "eot": 0}, "eot: expected a number ≥ 1, got 0"),
        ({"models": ["a"], "budgets": [0.1]}, "budgets: expected a table, got [0.1]"),
        (
            {"models": ["a"], "seed": "x", "shard": "y"},
            "2 mistakes\n  protocol: seed: expected a whole number, got 'x'",
        ),
        ({"models": ["a"], "seed": "x", "shard": "y"}, "\n  protocol: shard: expected a whole number, got 'y'"),
    ],
)
def test_mistakes(values, message):
    refused(ProtocolError, message, lambda: build_protocol(values))


def test_mistakes_in_budgets():
    def budgets(value, message):
        refused(ProtocolError, message, lambda: build_protocol({"models": ["a"], "budgets": value}))

    budgets({"linf": [0.1, -0.2]}, "budgets.linf.1: expected a positive, finite radius, got '-0.2'")
    budgets({"linf": []}, "expected at least one radius")
    budgets({"linf": [0.1, 0.2, "1/10"]}, "budgets.linf: expected every radius once, got 0.1 twice")
    budgets({"lnif": [0.1]}, "got 'lnif'. Did you mean 'linf'?")
    assert build_protocol({"models": ["a"], "budgets": {"linf": 0.1}}).budgets == {"linf": (0.1,)}


def test_files_that_are_none(tmp_path):
    refused(ProtocolError, "got 'quickstrt'. Did you mean 'quickstart'?", lambda: read_protocol("quickstrt"))
    path = tmp_path / "broken.toml"
    path.write_text("models = ['a']\nseed = \n")
    refused(ProtocolError, "expected valid TOML, got Invalid value (at line 2, column 8)", lambda: read_protocol(path))
    path.write_bytes(b"\xff\xfe")
    refused(ProtocolError, f"protocol '{path}' cannot be read", lambda: read_protocol(path))


def test_digest_is_of_the_content():
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest(0)) == 16
