"""Cards and suites: each runs and finds what is there to find, and each mistake in one is named."""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch
import torchattacks

from robustode.attacks.adapters.signature import accepted_parameters
from robustode.attacks.base import Status
from robustode.attacks.card import Card, read_card
from robustode.attacks.cards import card_names, distinct, is_shorthand, read_suite, resolve, suite_names
from robustode.errors import AttackError, BudgetError, MissingDependency, RobustODEError
from tests.attacks.adapter_problems import boxed_affine, exact_distance
from tests.problems import Affine

FUNCTION = """
def push(model, x, y, *, norm, eps, generator, share: float = 1.0):
    return (x + share * eps).clamp(0, 1)
"""


def refused(call, message, error=AttackError):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert message in str(caught.value), str(caught.value)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def card_text(**changes):
    values = {"title": "t", "implementation": "foolbox:LinfPGD", "norm": "linf", "kind": "budget"} | changes
    return "".join(f"{key} = {value if isinstance(value, int) else repr(value)}\n" for key, value in values.items())


def one_coordinate():
    """Two classes that one coordinate decides: every direction is the right one, up to its sign."""
    weight = torch.tensor([[-2.0], [3.0]], dtype=torch.float64)
    model = Affine(weight, torch.tensor([1.0, -1.5], dtype=torch.float64), (1, 1, 1)).eval()  # boundary at x = 0.5
    x = torch.tensor([0.3, 0.45, 0.6], dtype=torch.float64).reshape(3, 1, 1, 1)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("name", card_names())
def test_every_card_runs_and_finds_what_is_there(name):
    """On an affine classifier of two classes every direction is exact: success above the distance, never below it."""
    (card,) = resolve(name)
    if "one-step-random" in name:
        model, x, y = one_coordinate()
    else:
        shape = (1, 3, 4) if card.needs.features else (1, 4, 5)
        model, x, y = boxed_affine((0.0, 1.0), classes=max(2, card.needs.classes), input_shape=shape, samples=3)
    assert "search-table" in name or not card.needs.unmet(model)
    fewer = {key: 800 for key in ("queries", "n_queries") if key in card.params}  # a failure takes them all
    card = card.model_copy(update={"params": {**card.params, **fewer}, "restarts": min(card.restarts, 2)})
    exact = exact_distance(model, x, y, card.norm)
    generator = torch.Generator().manual_seed(0)
    if card.kind == "minimal":
        result = card.build(None)(model, x, y, generator=generator)
        assert result.success.all()
        slack = 0.031 if "paper" in name else 0.03 * exact  # its step; overshoots and step sizes of the others
        assert (result.distance >= exact * (1 - 1e-6)).all()
        assert (result.distance <= exact + slack).all()
        return
    enough = 3.0 if "square" in name else 1.1  # torchattacks' Square spares the last row and column
    for i in range(len(x)):
        above, below = (
            card.build(float(exact[i]) * factor)(model, x[i : i + 1], y[i : i + 1], generator=generator)
            for factor in (enough, 0.99)
        )
        assert above.status == (Status.SUCCESS,)
        assert exact[i] * (1 - 1e-6) <= above.distance[0] <= exact[i] * enough * (1 + 1e-6)
        assert below.status == (Status.FAILED,)


@pytest.mark.parametrize("name", card_names())
def test_every_card_says_what_it_is(name):
    (card,) = resolve(name)
    assert card.name == name
    assert name.endswith(f"-{card.norm}")
    assert card.title
    assert card.paper
    assert card.resolved()["params"] == card.params
    assert "source" not in card.resolved()


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_resolves(name):
    cards = resolve(name)
    assert len({card.name for card in cards}) == len(cards) >= 4
    for card in cards:
        card.check()


def test_standard_is_both_norms():
    assert resolve("standard") == resolve("standard-linf") + resolve("standard-l2")
    assert {card.norm for card in resolve("standard")} == {"linf", "l2"}
    assert resolve("standard", norms=["l2"]) == resolve("standard-l2")
    assert {card.implementation.partition(":")[0] for card in resolve("standard")} == {
        "robustode",
        "torchattacks",
        "foolbox",
    }
    assert resolve("none") == []


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_strong_suites_write_every_parameter_down_and_do_what_autoattack_does(norm):
    cards = {card.name: card for card in resolve(f"strong-{norm}")}
    assert all(card.cascade and card.norm == norm for card in cards.values())
    for card in cards.values():
        if card.provider == "torchattacks":
            accepted = set(accepted_parameters(getattr(torchattacks, card.implementation.partition(":")[2])))
            ours = {"model", "norm", "eps", "seed", "n_classes", "verbose"}
            assert accepted - ours == set(card.params) | set(card.per_eps), card.name
    apgd, apgd_t, fab = (cards[f"{name}-{norm}"] for name in ("apgd-ce", "apgd-t", "fab-t"))
    assert (apgd.params["loss"], apgd.params["steps"]) == ("ce", 100)
    assert (apgd_t.params["steps"], apgd_t.needs.classes) == (100, 4)
    assert (fab.params["steps"], fab.params["multi_targeted"]) == (100, True)
    searches = {card.needs.image: card for card in cards.values() if {"queries", "n_queries"} & set(card.params)}
    assert set(searches) == ({True, False} if norm == "linf" else {None})
    assert all(card.params.get("queries", card.params.get("n_queries")) == 5000 for card in searches.values())
    assert cards[f"sensitivity-thorough-{norm}"].params == {"setting": "thorough"}
    starts = cards[f"pgd-200-starts-{norm}"]
    assert (starts.restarts, starts.needs.features) == (200, 16)
    assert resolve("strong") == resolve("strong-linf") + resolve("strong-l2")


def test_step_sizes_follow_eps():
    (card,) = resolve("pgd-linf")
    assert card.params_at(0.2)["alpha"] == pytest.approx(0.2 * 2.5 / 40)
    assert card.build(0.2).params["alpha"] == pytest.approx(0.0125)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "title = 't'\nimplementation = 'foolbox:LinfPGD'\nnorm = 'linf'\nkind = 'budget'\nparam = {}\n",
            "got 'param'. Did you mean 'params'?",
        ),
        (card_text(implementation="foolbx:LinfPGD"), "got 'foolbx'. Did you mean 'foolbox'?"),
        (card_text(norm="l0"), "mine.toml, line 3: norm: expected 'l1', 'l2' or 'linf', got 'l0'"),
        (card_text(kind="best"), "line 4: kind: expected 'minimal' or 'budget'"),
        (card_text(title=3), "line 1: title: expected a text, got 3"),
        ("title = 't'\nnorm = 'l2'\nkind = 'minimal'\n", "mine.toml: implementation: expected a value, got none"),
        (card_text() + "[params]\nsteps = inf\n", "params: expected finite numbers, texts, true or false"),
        (card_text() + "[params]\nday = 2020-01-01\n", "params: expected finite numbers, texts"),
        (
            card_text() + "[per_eps]\nabs_stepsize = nan\n",
            "line 6: per_eps.abs_stepsize: expected a finite number",
        ),
        (card_text(kind="minimal") + "[per_eps]\na = 1.0\n", "expected none, a minimal-norm attack has no ε"),
        (card_text() + "[params]\na = 1\n[per_eps]\na = 1.0\n", "params does not set, got a in both"),
        ("title = 't'\nnorm = l2\n", "expected valid TOML, got Invalid value (at line 2, column 8)"),
    ],
)
def test_mistakes_in_a_card(tmp_path, text, message):
    path = write(tmp_path / "mine.toml", text)
    refused(lambda: read_card(path), message)
    with pytest.raises(AttackError, match=re.escape(str(path))):
        resolve(str(path))


@pytest.mark.parametrize(
    ("changes", "params", "message"),
    [
        ({"implementation": "foolbox:LinfPDG"}, "", "unknown foolbox attack"),
        ({"implementation": "torchattacks:PGDX"}, "", "Did you mean 'PGD"),
        ({"implementation": "robustode:sensitivty"}, "", "got 'sensitivty'. Did you mean 'sensitivity'?"),
        ({}, "step = 3", "got 'step'. Did you mean 'steps'?"),
        ({}, "steps = 'many'", "parameter 'steps' of foolbox attack LinfPGD: expected an integer, got 'many'"),
        ({"implementation": "robustode:sensitivity"}, "dampin = 0.5", "got 'dampin'. Did you mean 'damping'?"),
        (
            {"implementation": "robustode:sensitivity"},
            "damping = 'x'",
            "parameter 'damping' of robustode:sensitivity: expected a number, got 'x'",
        ),
        ({"implementation": "robustode:sensitivity"}, "eps = 0.1", "The budget sets it"),
        ({"implementation": "robustode:sensitivity"}, "damping = 2.0", "expected a number in (0, 1], got 2.0"),
        ({"implementation": "python:none.py:push"}, "", "expected a file none.py in "),
        ({"implementation": "python:mine.py:pull"}, "", "got no 'pull' there"),
        ({"implementation": "python:mine.py:push"}, "shar = 1.0", "got 'shar'. Did you mean 'share'?"),
        ({"implementation": "foolbox:L2PGD"}, "", "norm of foolbox attack L2PGD: expected l2, got linf"),
    ],
)
def test_implementations_and_parameters_are_checked_before_a_model_is_there(tmp_path, changes, params, message):
    write(tmp_path / "mine.py", FUNCTION)
    card = read_card(write(tmp_path / "mine.toml", card_text(**changes) + f"[params]\n{params}\n"))
    refused(card.check, message)


def test_missing_files_and_names():
    refused(lambda: resolve("standrd"), "got 'standrd'. Did you mean 'standard'?")
    refused(lambda: resolve("sensitivity-12"), "got 'sensitivity-12'. Did you mean 'sensitivity-l2'?")
    refused(lambda: resolve("no/such.toml"), "unknown suite or attack")
    refused(lambda: resolve("torchatacks:PGD", norms=["l2"]), "got 'torchatacks'. Did you mean 'torchattacks'?")
    refused(lambda: resolve("standard", norms=["l1"]), "attacks of 'standard': expected a norm among l2, linf, got l1")
    refused(lambda: resolve("standard", norms=["l3"]), "unknown norm", BudgetError)
    refused(lambda: resolve("pgd-linf", params={"steps": 3}), "expected none: its cards fix them, got ['steps']")


@pytest.mark.parametrize(
    ("name", "norm", "kind", "card_name"),
    [
        ("sensitivity", "linf", "minimal", "sensitivity-linf"),
        ("one-step", "l2", "budget", "one-step-l2"),
        ("torchattacks:PGD", "linf", "budget", "torchattacks-PGD-linf"),
        ("torchattacks:DeepFool", "l2", "minimal", "torchattacks-DeepFool-l2"),
        ("foolbox:L2PGD", "l2", "budget", "foolbox-L2PGD-l2"),
        ("foolbox:L2DeepFoolAttack", "l2", "minimal", "foolbox-L2DeepFoolAttack-l2"),
        ("python:mine.py:push", "linf", "budget", "python-push-linf"),
    ],
)
def test_shorthand(tmp_path, name, norm, kind, card_name):
    write(tmp_path / "mine.py", FUNCTION)
    assert is_shorthand(name)
    (card,) = resolve(name, norms=[norm], base=tmp_path)
    assert (card.name, card.title, card.kind, card.norm) == (card_name, name, kind, norm)
    model, x, y = boxed_affine((0.0, 1.0), samples=2)
    eps = None if kind == "minimal" else 1.2 * float(exact_distance(model, x, y, norm).max())
    assert card.build(eps).eps == eps
    refused(lambda: resolve(name, base=tmp_path), "expected a norm, got none. Add --norm")


def test_shorthand_takes_parameters_and_several_norms():
    cards = resolve("sensitivity", norms=["l2", "linf", "l2"], params={"damping": 0.3})
    assert [(card.name, card.norm) for card in cards] == [("sensitivity-l2", "l2"), ("sensitivity-linf", "linf")]
    assert cards[0].build(None).damping == 0.3
    (card,) = resolve("foolbox:L2PGD", norms=["l2"], params={"steps": 7})
    assert card.build(0.5).params == {"steps": 7}


def test_a_suite_by_path_with_cards_beside_it(tmp_path, monkeypatch):
    write(tmp_path / "code" / "mine.py", FUNCTION)
    write(tmp_path / "code" / "push.toml", card_text(implementation="python:mine.py:push"))
    write(tmp_path / "inner.toml", "attacks = ['pgd-linf', 'code/push.toml']")
    path = write(tmp_path / "outer.toml", "title = 'mine'\nsuites = ['inner']\nattacks = ['code/push', 'fgm-l2']\n")
    cards = resolve(str(path))
    assert [card.name for card in cards] == ["pgd-linf", "push", "fgm-l2"]  # the one that comes twice is taken once
    assert resolve("outer", base=tmp_path) == cards
    monkeypatch.chdir(tmp_path)
    assert resolve("outer") == cards
    model, x, y = one_coordinate()
    assert cards[1].build(0.25)(model, x[:2], y[:2]).success.tolist() == [True, True]
    code = cards[1].resolved()["code"]
    write(tmp_path / "code" / "mine.py", FUNCTION + "# changed\n")
    assert len(code) == 16
    assert cards[1].resolved()["code"] != code


def test_a_shipped_name_is_the_shipped_one(tmp_path, monkeypatch):
    write(tmp_path / "standard.toml", "attacks = ['fgm-l2']")
    monkeypatch.chdir(tmp_path)
    assert len(resolve("standard")) > 10
    assert [card.name for card in resolve("./standard")] == ["fgm-l2"]


def test_mistakes_in_a_suite(tmp_path):
    def suite(text, message):
        path = write(tmp_path / "mine.toml", text)
        refused(lambda: read_suite(path), message)

    suite("attack = ['pgd-linf']", "got 'attack'. Did you mean 'attacks'?")
    suite("attacks = 'pgd-linf'", f"{tmp_path}/mine.toml, line 1: attacks: expected a list of names")
    suite("attacks = [1]", "expected a list of names, got [1]")
    suite("attacks = []", "expected at least one attack, got none")
    suite("attacks = ['pgd-lnf']", "got 'pgd-lnf'. Did you mean 'pgd-linf'?")
    suite("suites = ['standard-l3']", "got 'standard-l3'. Did you mean 'standard-l2'?")
    suite("suites = ['mine']", "expected suites that do not include themselves, got a cycle")
    write(tmp_path / "other.toml", "suites = ['mine']")
    suite("suites = ['other']", "got a cycle")
    suite("attacks = ['a']\ntitle = x", "expected valid TOML, got Invalid value (at line 2, column 9)")
    refused(lambda: read_suite(tmp_path / "none.toml"), "cannot be read")


def test_different_cards_of_one_name_keep_apart(tmp_path):
    (shipped,) = resolve("sensitivity-l2")
    (mine,) = resolve("sensitivity", norms=["l2"], params={"damping": 0.3})
    assert [card.name for card in distinct([shipped, mine, shipped, mine])] == ["sensitivity-l2", "sensitivity-l2#2"]


def test_without_torchattacks_a_shorthand_says_how_to_install_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torchattacks" else find(name, *a)
    )
    message = 'torchattacks is not installed. Install it with: pip install "robustode[torchattacks]"'
    refused(lambda: resolve("torchattacks:PGD", norms=["linf"]), message, MissingDependency)
    (card,) = resolve("pgd-linf")  # reading a card needs no library
    refused(card.check, message, MissingDependency)


def test_cards_are_frozen():
    (card,) = resolve("pgd-linf")
    with pytest.raises(ValueError, match="frozen"):
        card.norm = "l2"
    assert isinstance(card, Card)
    assert issubclass(AttackError, RobustODEError)
