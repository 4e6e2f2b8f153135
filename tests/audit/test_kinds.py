"""What a check knows of a card: one step or many."""

import pytest

from robustode.attacks.cards import resolve
from robustode.audit.kinds import is_fgsm, is_one_step, iterative

# name, norm, parameters: FGSM, one step, many steps in a ball
CARDS = [
    ("torchattacks:FGSM", {}, (True, True, False)),
    ("torchattacks:FFGSM", {}, (False, True, False)),
    ("torchattacks:RFGSM", {}, (False, False, True)),
    ("torchattacks:PGD", {"steps": 1}, (False, True, False)),
    ("torchattacks:PGD", {"steps": 40}, (False, False, True)),
    ("foolbox:LinfFastGradientAttack", {}, (True, True, False)),
    ("foolbox:LinfPGD", {"steps": 40}, (False, False, True)),
    ("foolbox:LinfAdditiveUniformNoiseAttack", {}, (False, False, False)),
    ("foolbox:LinfDeepFoolAttack", {}, (False, False, False)),
    ("one-step", {"kind": "margin"}, (False, True, False)),
]


@pytest.mark.parametrize(("name", "params", "expected"), CARDS)
def test_steps_are_told_from_the_card(name, params, expected):
    (card,) = resolve(name, norms=["linf"], params=params)
    assert (is_fgsm(card), is_one_step(card), iterative([card], "linf") == [card]) == expected
    assert iterative([card], "l2") == []
