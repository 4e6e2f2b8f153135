"""What a card needs of a model: each key at its border, and what is said."""

from __future__ import annotations

import pytest
import torch

from robustode.attacks.cards import read_suite, resolve
from robustode.attacks.needs import Needs
from robustode.errors import AttackError
from tests.problems import Affine


def model(classes=3, shape=(1, 2, 4)):
    return Affine(torch.zeros(classes, torch.Size(shape).numel()), torch.zeros(classes), shape)


@pytest.mark.parametrize(
    ("needs", "fits", "other", "reason"),
    [
        ({"classes": 3}, model(3), model(2), "needs at least 3 classes, the model has 2"),
        (
            {"image": True},
            model(shape=(1, 2, 4)),
            model(shape=(2, 4)),
            "needs images (channels, height, width), the model has inputs of shape (2, 4)",
        ),
        (
            {"image": False},
            model(shape=(8,)),
            model(shape=(1, 2, 4)),
            "needs inputs that are not images, the model has inputs of shape (1, 2, 4)",
        ),
        (
            {"features": 8},
            model(),
            model(shape=(9,)),
            "needs at most 8 input coordinates, the model has 9",
        ),
        (
            {"features_above": 8},
            model(shape=(9,)),
            model(),
            "needs more than 8 input coordinates, the model has 8",
        ),
    ],
)
def test_each_need_at_its_border(needs, fits, other, reason):
    assert Needs(**needs).unmet(fits) == ""
    assert Needs(**needs).unmet(other) == reason
    assert Needs().unmet(other) == ""


def test_a_card_has_them_and_its_hash_only_where_it_does(tmp_path):
    text = "title='t'\nimplementation='foolbox:LinfPGD'\nnorm='linf'\nkind='budget'\n"
    (tmp_path / "mine.toml").write_text(text + "[needs]\nclasses = 3\nimage = true\n")
    (tmp_path / "plain.toml").write_text(text)
    (mine,), (plain,) = resolve(str(tmp_path / "mine")), resolve(str(tmp_path / "plain"))
    assert mine.resolved()["needs"] == {"classes": 3, "image": True}
    assert {"needs", "cascade", "restarts"}.isdisjoint(plain.resolved())
    for wrong in ("clases = 3", "classes = '3'", "features = 0", "features = 4\nfeatures_above = 4"):
        (tmp_path / "wrong.toml").write_text(text + f"[needs]\n{wrong}\n")
        with pytest.raises(AttackError, match="needs"):
            resolve(str(tmp_path / "wrong"))


def test_a_suite_may_be_a_cascade_and_a_card_may_not(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text("cascade = true\nsuites = ['standard-l2']\nattacks = ['pgd-linf']")
    cards = read_suite(path)
    assert all(card.cascade for card in cards)
    assert cards[-1].resolved() == {**resolve("pgd-linf")[0].resolved(), "cascade": True}
    path.write_text("cascade = false\nattacks = ['pgd-linf']")
    assert read_suite(path) == resolve("pgd-linf")
    path.write_text("cascade = 1\nattacks = ['pgd-linf']")
    with pytest.raises(AttackError, match=r"suite\.toml, line 1: cascade: expected true or false, got 1"):
        read_suite(path)
    card = tmp_path / "card.toml"
    card.write_text("title='t'\nimplementation='foolbox:LinfPGD'\nnorm='linf'\nkind='budget'\ncascade = true\n")
    with pytest.raises(AttackError, match=r"card\.toml, line 5: key 'cascade': expected none"):
        resolve(str(card))
