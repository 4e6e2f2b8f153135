"""finite: a region of NaN is found wherever it lies; an honest model passes."""

import torch
from torch import nn

import robustode as ro
from robustode.audit.checks.finite import CHECK
from robustode.audit.finding import Verdict
from tests.audit.cases import make_case


class Hole(nn.Module):
    """Affine logits; NaN where the first coordinate exceeds `above`."""

    def __init__(self, above: float, gradient_only: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.above, self.gradient_only = above, gradient_only

    def forward(self, x):
        z = self.linear(x)
        if self.gradient_only:
            return z + 0 * torch.sqrt(0 * x[:, :1])
        return torch.where(x[:, :1] > self.above, torch.nan, z)


def case_of(above: float, gradient_only: bool = False, width: float = 0.5):
    torch.manual_seed(0)
    model = ro.wrap(Hole(above, gradient_only), bounds=(0, 1), sample=torch.zeros(1, 2))
    x = width * torch.rand(40, 2)
    return make_case(model, x, model(x).nan_to_num().argmax(1))


def test_an_honest_model_passes():
    found = CHECK(case_of(2.0))
    assert found.status is Verdict.PASS
    assert found.value == 0
    assert found.samples == ()
    assert found.advice == ""


def test_samples_without_an_answer_are_named():
    case = case_of(0.25)
    found = CHECK(case)
    expected = tuple((case.shard.x[:, 0] > 0.25).nonzero().squeeze(1).tolist())
    assert found.status is Verdict.FAIL
    assert expected
    assert set(expected) == set(found.samples)
    assert found.advice


def test_a_hole_away_from_all_samples_is_found():
    found = CHECK(case_of(0.6))
    assert found.status is Verdict.FAIL
    assert found.samples == ()


def test_a_gradient_that_is_not_finite_is_found():
    found = CHECK(case_of(2.0, gradient_only=True))
    assert found.status is Verdict.FAIL
    assert len(found.samples) == 40
