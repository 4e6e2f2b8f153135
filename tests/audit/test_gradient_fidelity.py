"""gradient-fidelity: wrong by r is measured as r; an honest gradient passes in every precision."""

import pytest
import torch
from torch import nn

from robustode.audit.checks.gradient_fidelity import CHECK
from robustode.audit.finding import Verdict
from robustode.evaluation.eot import Averaged
from tests.audit.cases import make_case
from tests.problems import Affine, random_affine, random_points, random_snode


class Scaled(torch.autograd.Function):
    """The identity whose gradient is too large by a factor for each sample."""

    @staticmethod
    def forward(ctx, z, factor):
        ctx.save_for_backward(factor)
        return z.clone()

    @staticmethod
    def backward(ctx, *gradients):
        (factor,) = ctx.saved_tensors
        return gradients[0] * factor[:, None], None


class Wrong(Affine):
    """Affine logits, the gradient `factor` times too large where the first coordinate is below `share`."""

    def __init__(self, factor, share=1.0, dtype=torch.float32):
        base = random_affine(dtype=dtype)
        super().__init__(base.weight.data, base.bias.data, (1, 3, 4))
        self.factor, self.share = factor, share

    def forward(self, x):
        where = x.flatten(1)[:, 0] < self.share
        return Scaled.apply(super().forward(x), torch.where(where, self.factor, 1.0).to(x))


class OnlyFloat32(Affine):
    def forward(self, x):
        return (super().forward(x.float()).float()).tanh()


class Noisy(Affine):
    def forward(self, x):
        return super().forward(x) + 0.3 * torch.randn(len(x), self.classes) * x.flatten(1)[:, :1]


class Clamping(Affine):
    def forward(self, x):
        return super().forward(x.clamp(0, 1))


def case_of(model: nn.Module, x=None, dtype=torch.float32):
    x = random_points((1, 3, 4), 40, dtype=dtype) if x is None else x
    return make_case(model.eval(), x, model(x).argmax(1))


def affine(cls):
    base = random_affine(dtype=torch.float32)
    return cls(base.weight.data, base.bias.data, (1, 3, 4))


@pytest.mark.parametrize(("r", "status"), [(0.009, Verdict.PASS), (0.012, Verdict.FAIL), (1.0, Verdict.FAIL)])
def test_the_relative_error_is_measured(r, status):
    found = CHECK(case_of(Wrong(1 + r)))
    assert found.status is status
    assert found.value == pytest.approx(r / (1 + r), rel=1e-3)


def test_a_detached_graph_is_wrong_by_one():
    class Detached(Affine):
        def forward(self, x):
            return super().forward(x.detach())

    found = CHECK(case_of(affine(Detached)))
    assert found.status is Verdict.FAIL
    assert found.value == pytest.approx(1.0, abs=1e-12)
    assert found.advice


def test_a_minority_of_wrong_gradients_warns_and_names_them():
    x = random_points((1, 3, 4), 30, dtype=torch.float32)
    x[:, 0, 0, 0] = 0.5
    for wrong, status in ((3, Verdict.PASS), (4, Verdict.WARN)):
        x[:wrong, 0, 0, 0] = 0.1
        found = CHECK(case_of(Wrong(2.0, share=0.3), x))
        assert found.status is status
    assert found.samples == (0, 1, 2, 3)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_an_honest_snode_passes_in_float64_with_the_error_of_float32(scale):
    found = CHECK(case_of(random_snode(scale=scale, dtype=torch.float32)))
    assert found.status is Verdict.PASS
    assert "float64" in found.text
    assert found.value is not None
    assert found.value < 1e-5


@pytest.mark.parametrize("cls", [OnlyFloat32, Clamping])
def test_an_honest_module_passes_where_float64_or_the_edge_of_the_box_is_in_the_way(cls):
    x = random_points((1, 3, 4), 40, dtype=torch.float32).round()  # corners of the box
    found = CHECK(case_of(affine(cls), x))
    assert found.status is Verdict.PASS
    assert ("deployed precision" in found.text) == (cls is OnlyFloat32)


def test_averages_of_a_randomised_model_are_compared_under_the_same_draws():
    model = Averaged(affine(Noisy).eval(), 4)
    found = CHECK(case_of(model))
    assert found.status is Verdict.PASS
    assert found.value is not None
    assert found.value < 5e-3


def test_a_large_float32_module_with_a_wrong_gradient_is_found():
    class Cast(Wrong):
        def forward(self, x):
            return super().forward(x.float()).float()

    assert CHECK(case_of(Cast(1.5))).value == pytest.approx(1 / 3, abs=2e-3)
