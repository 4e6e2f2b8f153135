"""logits: probabilities are told from logits, and matter where a loss takes the softmax again."""

import pytest
import torch

from robustode.attacks.cards import resolve
from robustode.audit.checks.logits import CHECK
from robustode.audit.finding import Verdict
from robustode.audit.kinds import takes_logits
from tests.audit.cases import Lines, at_distances, make_case


class Softmax(Lines):
    def __init__(self, excess: float = 0.0) -> None:
        super().__init__()
        self.excess = excess

    def forward(self, x):
        return super().forward(x).softmax(1) * (1 + self.excess)


class LogSoftmax(Lines):
    def forward(self, x):
        return super().forward(x).log_softmax(1)


def found_of(model, attacks=("fgm-linf",)):
    x, y = at_distances(torch.linspace(0.1, 0.4, 20))
    return CHECK(make_case(model, x, y, attacks=attacks, budgets={"linf": [0.05]}))


@pytest.mark.parametrize("attack", ["fgm-linf", "pgd-foolbox-linf"])
def test_probabilities_fail_under_the_cross_entropy(attack):
    found = found_of(Softmax(), [attack])
    assert found.status is Verdict.FAIL
    assert attack in found.text


def test_probabilities_warn_where_no_loss_takes_logits():
    assert found_of(Softmax(), ["sensitivity-linf", "deepfool-linf"]).status is Verdict.WARN


@pytest.mark.parametrize("cls", [Lines, LogSoftmax])
def test_logits_pass(cls):
    found = found_of(cls())
    assert (found.status, found.value) == (Verdict.PASS, 0.0)


@pytest.mark.parametrize(("excess", "status"), [(-0.9e-4, Verdict.FAIL), (-1.1e-4, Verdict.PASS)])
def test_sums_within_1e_4_are_one(excess, status):
    assert found_of(Softmax(excess)).status is status


def test_every_sample_must_look_like_probabilities():
    class Once(Softmax):
        def forward(self, x):
            return torch.where(x == x.min(), 2.0, 1.0) * super().forward(x)

    found = found_of(Once())
    assert found.status is Verdict.PASS
    assert found.value == 19 / 20


def test_losses_that_take_logits_are_known():
    names = {"pgd-linf": True, "fgsm-linf": True, "ddn-l2": True, "deepfool-l2": False, "sensitivity-l2": False}
    assert {name: takes_logits(resolve(name)[0]) for name in names} == names
    assert takes_logits(resolve("torchattacks:APGD", norms=["linf"])[0])
    assert not takes_logits(resolve("torchattacks:APGD", norms=["linf"], params={"loss": "dlr"})[0])
    assert not takes_logits(resolve("torchattacks:APGDT", norms=["linf"])[0])
