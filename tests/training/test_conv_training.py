"""Training a convolutional sNODE: nonlinear conjugate gradients on its path of kernels, and Adam by the fused sweep."""

import pytest
import torch

from robustode.training import NCGConfig, build, fit, recipe
from robustode.training.cost import Cost
from tests.problems import random_conv_snode, random_points
from tests.training.problems import data

ALL = Cost(mu1=0.7, mu2=1.3, mu3=0.9, mu4=0.4)


@pytest.mark.parametrize(("method", "knots"), [("euler", 12), ("euler", 3), ("rk4", 3)])
def test_gradient_slope_and_cost_agree(method, knots):
    model = random_conv_snode(method=method, knots=knots, patch=2, channels=8)
    x, y = random_points(model.input_shape, 20), torch.arange(20) % model.classes
    trainer = NCGConfig(cost=ALL).trainer(model, 1)
    x0, path = model.encode(x), trainer.path()
    assert path.shape == (knots, 8 * 8 * 9 + 8)
    point = trainer.at(x0, y)
    assert point.state.shape == (20, 8)  # what is read of x(T): the logits and the other channels' means
    g = trainer.gradient(point, y)
    d = torch.randn(g.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope, _ = trainer.line(point, d, y)(0.0)
    assert slope == pytest.approx(float((g * d).sum()), rel=1e-11)
    costs = []
    for h in (1e-5, -1e-5):
        trainer.move(path + h * d)
        costs.append(trainer.at(x0, y).terms.total)
    assert slope == pytest.approx((costs[0] - costs[1]) / 2e-5, rel=1e-6)
    assert abs(slope) > 1e-3


def test_conjugate_gradients_never_raise_the_mini_batch_cost():
    model = random_conv_snode()
    x, y = random_points(model.input_shape, 20), torch.arange(20) % model.classes
    trainer = NCGConfig(iterations=4, cost=ALL, averaging=0).trainer(model, 1)
    costs = [trainer.at(model.encode(x), y).terms.total]
    for _ in range(6):
        costs.append(trainer.step(x, y).final)
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.9 * costs[0]


def bars(n=60, seed=0):
    """Noisy images of one bar: across, down or aslant."""
    g = torch.Generator().manual_seed(seed)
    y, places = torch.arange(n) % 3, torch.randint(1, 5, (n,), generator=g)
    x = 0.3 * torch.rand(n, 1, 6, 6, generator=g)
    for image, label, place in zip(x[:, 0], y.tolist(), places.tolist(), strict=True):
        bar = (image[place], image[:, place], image.diagonal(place - 3))[label]
        bar += 0.6
    return data(n=n, shape=(1, 6, 6), x=x, y=y)


@pytest.mark.parametrize("optimiser", [recipe("conv-snode").optimiser, NCGConfig(averaging=0)], ids=["adam", "ncg"])
def test_bars_are_learnt(optimiser):
    chosen = recipe("conv-snode")
    model = build(chosen, bars())
    result = fit(model, bars(), recipe=optimiser.replace(epochs=20, batch=20), test=bars(seed=1))
    assert result.test_accuracy is not None
    assert result.test_accuracy >= 0.95
