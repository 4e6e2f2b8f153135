"""Adversarial training: points inside ball and box, closed forms, a model left as it was, and robustness gained."""

import json
import math
from dataclasses import FrozenInstanceError, asdict, replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from robustode.attacks.cards import resolve
from robustode.attacks.norms import ball_tolerance, distance
from robustode.data import load_data
from robustode.errors import TrainingError
from robustode.models.layered import Layered
from robustode.models.resnet import ResNet
from robustode.training import Adversary, NCGConfig, SGDConfig, build, fit, provenance, recipe
from robustode.training.adversarial import adversary_of, batch_generator
from tests.problems import Affine, random_affine, random_points, random_snode
from tests.training.problems import data, snode

PGD, SENSITIVITY = Adversary(eps=0.1), Adversary(attack="sensitivity", eps=0.1)
BOTH = pytest.mark.parametrize("adversary", [PGD, SENSITIVITY], ids=["pgd", "sensitivity"])
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def losses(model, x, y):
    with torch.no_grad():
        return cross_entropy(model(x), y, reduction="none")


@BOTH
@NORMS
@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 2.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inside_ball_and_box_and_harder(adversary, norm, start, bounds, dtype):
    model = random_snode(scale=1.5, dtype=dtype, bounds=bounds)
    x = random_points((1, 3, 4), 60, dtype=dtype, lo=bounds[0], hi=bounds[1])
    x[:5] = bounds[0]
    x[5:10] = bounds[1]
    y = model(x).argmax(1).detach()
    adversary = replace(adversary, norm=norm, eps=0.2, random_start=start)
    x_adv = adversary.perturb(model, x, y, generator())
    assert (x_adv.dtype, x_adv.shape, x_adv.requires_grad) == (dtype, x.shape, False)
    assert ((x_adv >= bounds[0]) & (x_adv <= bounds[1])).all()
    gap = distance(x, x_adv, norm)
    assert gap.max() <= 0.2 + (1e-14 if dtype == torch.float64 else ball_tolerance(0.2, bounds, 12, norm))
    assert gap.median() == pytest.approx(0.2, rel=0.01)  # the edge of the ball
    assert (losses(model, x_adv, y) >= losses(model, x, y)).double().mean() > 0.95


@pytest.mark.parametrize("start", [True, False])
@BOTH
def test_closed_form_on_two_classes_linf(adversary, start):
    model, x = random_affine(2), random_points((1, 3, 4), 40)
    y = torch.arange(40) % 2
    slope = (model.weight[1 - y] - model.weight[y]).detach().reshape(x.shape)
    x_adv = replace(adversary, random_start=start).perturb(model, x, y, generator())
    assert torch.allclose(x_adv, (x + 0.1 * slope.sign()).clamp(0, 1), rtol=0, atol=1e-14)


@BOTH
def test_closed_form_on_two_classes_l2(adversary):
    model, x = random_affine(2, bounds=(-9.0, 9.0)), random_points((1, 3, 4), 40)
    y = torch.arange(40) % 2
    slope = (model.weight[1 - y] - model.weight[y]).detach()
    unit = (slope / slope.norm(dim=1, keepdim=True)).reshape(x.shape)
    x_adv = replace(adversary, norm="l2", random_start=False).perturb(model, x, y, generator())
    assert torch.allclose(x_adv, x + 0.1 * unit, rtol=0, atol=1e-14)


def test_sensitivity_has_the_largest_margin_of_the_ball_over_all_classes():
    model, x = random_affine(4), random_points((1, 3, 4), 200)
    y = model(x).argmax(1)
    slope = (model.weight[None] - model.weight[y][:, None]).detach()  # of z_k − z_y
    corners = (x.flatten(1)[:, None] + 0.1 * slope.sign()).clamp(0, 1)
    values = (slope * corners).sum(2) + (model.bias[None] - model.bias[y][:, None]).detach()
    best = values.scatter(1, y[:, None], -math.inf).amax(1)
    z = model(SENSITIVITY.perturb(model, x, y, generator())).detach()
    margin = (z - z.gather(1, y[:, None])).scatter(1, y[:, None], -math.inf).amax(1)
    assert torch.allclose(margin, best, rtol=0, atol=1e-13)
    assert 0.1 < (best > 0).double().mean() < 0.9  # beyond the boundary wherever it crosses the ball


def test_a_saturated_softmax_stops_no_step():
    model = random_affine(3, dtype=torch.float32)
    with torch.no_grad():
        model.weight.mul_(1e4)
    x = random_points((1, 3, 4), 20, dtype=torch.float32)
    y = model(x).argmax(1)
    assert (model(x).softmax(1).amax(1) == 1).any()
    x_adv = replace(PGD, random_start=False).perturb(model, x, y, generator())
    assert (distance(x, x_adv, "linf") > 0.09).all()


@BOTH
def test_draws_come_from_the_generator_alone(adversary):
    model = random_snode(scale=2.0)
    x = random_points((1, 3, 4), 20)
    y = model(x).argmax(1).detach()
    adversary = replace(adversary, norm="l2", steps=1, step_size=0.01 if adversary.attack == "pgd" else None)
    before = torch.get_rng_state()
    one, two, other = (adversary.perturb(model, x, y, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())
    single = adversary.perturb(model.float(), x.float(), y, generator(3))
    assert (single.double() - one).abs().max() < 1e-5


def test_generators_of_mini_batches():
    keys = [(0, 1, 1), (0, 1, 2), (0, 2, 1), (1, 1, 1)]
    draws = {key: torch.rand(1, generator=batch_generator(*key)).item() for key in keys}
    assert len(set(draws.values())) == 4
    assert draws[0, 2, 1] == torch.rand(1, generator=batch_generator(0, 2, 1)).item()


@BOTH
def test_the_model_is_left_as_it_was(adversary):
    model = ResNet(input_shape=(1, 4, 4), classes=3, width=4, seed=1).train()
    model.stem.eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    modes = [part.training for part in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = random_points((1, 4, 4), 12, dtype=torch.float32), torch.arange(12) % 3
    kept = x.clone()
    x_adv = adversary.perturb(model, x, y, generator())
    assert [part.training for part in model.modules()] == modes
    assert any(modes)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(bool((p.grad == 1).all()) and p.requires_grad for p in model.parameters())
    assert torch.equal(x, kept)
    assert torch.equal(x_adv, adversary.perturb(model.eval(), x, y, generator()))  # eval mode was attacked


def test_modes_come_back_after_an_error():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3, 2)).train()
    model.bounds = (0.0, 1.0)  # type: ignore[assignment]
    model[1].eval()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        PGD.perturb(model, torch.rand(2, 4), torch.tensor([0, 1]), generator())
    assert [part.training for part in model.modules()] == [True, True, False, True]


@BOTH
def test_only_the_share_asked_for_is_attacked(adversary):
    model, x = random_affine(3), random_points((1, 3, 4), 30)
    y = model(x).argmax(1)
    changed = [
        (replace(adversary, fraction=0.3).perturb(model, x, y, generator(seed)) != x).flatten(1).any(1)
        for seed in (0, 1)
    ]
    assert [int(rows.sum()) for rows in changed] == [9, 9]
    assert not torch.equal(*changed)
    tiny = replace(adversary, fraction=0.001).perturb(model, x, y, generator())
    assert int((tiny != x).flatten(1).any(1).sum()) == 1


def test_passes_are_as_many_as_promised(monkeypatch):
    passes = {"forward": 0, "reverse": 0}

    class Counted(Affine):
        def forward(self, x):
            passes["forward"] += 1
            return super().forward(x)

    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: (passes.update(reverse=passes["reverse"] + 1), grad(*a, **k))[1]
    )
    affine = random_affine(6)
    model = Counted(affine.weight.detach(), affine.bias.detach(), (1, 3, 4))
    x, y = random_points((1, 3, 4), 10), torch.arange(10) % 6
    counts = []
    for adversary in (SENSITIVITY, PGD):
        adversary.perturb(model, x, y, generator())
        counts.append((passes["forward"], passes["reverse"]))
        passes.update(forward=0, reverse=0)
    assert counts == [(3, 4), (7, 7)]


@BOTH
@pytest.mark.parametrize("config", [SGDConfig(epochs=2, batch=20), NCGConfig(epochs=2, batch=20, averaging=0.0)])
def test_fit_trains_on_attacked_mini_batches(config, adversary, monkeypatch):
    source, seen = data(), []
    kind = type(config.trainer(snode(), 6))
    step = kind.step
    monkeypatch.setattr(kind, "step", lambda self, x, y: (seen.append((x, y)), step(self, x, y))[1])
    kept = source.x.clone()
    weights = []
    for _ in range(2):
        torch.manual_seed(len(weights))
        model = snode(seed=4)
        fit(model, source, recipe=config.replace(adversary=adversary), seed=3)
        weights.append(model.weight.detach().clone())
    assert torch.equal(*weights)
    assert torch.equal(source.x, kept)
    for x, y in seen:
        gap = (x[:, None] - source.x.double()[None]).abs().amax(2).masked_fill(y[:, None] != source.y, math.inf)
        nearest = gap.amin(1)
        assert nearest.max() <= 0.1 + 1e-7
        assert nearest.median() > 0.04
    plain = snode(seed=4)
    fit(plain, source, recipe=config, seed=3)
    assert not torch.equal(plain.weight, weights[0])


def test_adversarial_training_makes_robust():
    train, test = (load_data("digits", split=split, limit=limit) for split, limit in (("train", 400), ("test", 150)))
    (card,) = resolve("pgd-linf")
    attack = card.build(0.1)
    robust = {}
    for adversary in (None, PGD, SENSITIVITY):
        model = Layered(input_shape=(1, 8, 8), classes=10, steps=6, seed=0)
        fit(model, train, recipe=SGDConfig(epochs=12, batch=40, learning_rate=1.0, adversary=adversary))
        result = attack(model, test.x, test.y, generator=generator())
        robust[adversary and adversary.attack] = sum(s.value == "failed" for s in result.status) / len(test)
    assert robust["pgd"] > robust[None] + 0.15
    assert robust["sensitivity"] > robust[None] + 0.15


def test_overrides_build_the_adversary_and_provenance_carries_it():
    base = recipe("resnet", "digits")
    chosen = base.overrides(adversary="pgd", adversary_eps=0.1, adversary_norm="l2", adversary_steps=5, epochs=1)
    assert chosen.optimiser.adversary == Adversary(eps=0.1, norm="l2", steps=5)
    assert (chosen.optimiser.epochs, base.optimiser.adversary) == (1, None)
    more = chosen.overrides(adversary_eps=0.2).optimiser.adversary
    assert more == Adversary(eps=0.2, norm="l2", steps=5)
    other = chosen.overrides(adversary="sensitivity").optimiser.adversary
    assert other == Adversary(attack="sensitivity", eps=0.1, norm="l2")
    assert chosen.overrides(epochs=2).optimiser.adversary == chosen.optimiser.adversary
    assert chosen.overrides(adversary="none") == base.overrides(epochs=1)
    given = recipe("snode").overrides(adversary=PGD, adversary_fraction=0.5).optimiser.adversary
    assert given == replace(PGD, fraction=0.5)
    small = recipe("layered").overrides(adversary=SENSITIVITY, epochs=1, batch=30, steps=4)
    result = fit(build(small, data()), data(), recipe=small)
    stored = json.loads(json.dumps(provenance(small, result, "c", 0)))["optimiser"]["adversary"]
    assert stored == asdict(SENSITIVITY)
    assert Adversary(**stored) == SENSITIVITY
    assert (stored["attack"], stored["steps"]) == ("sensitivity", 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversary": "pdg"}, "unknown adversary: expected one of none, pgd, sensitivity, got 'pdg'. Did you mean 'p"),
        ({"adversary": "pgd"}, "training option adversary_eps: expected a finite number > 0, got None"),
        ({"adversary_eps": 0.1}, r"expected an adversary \(pgd, sensitivity\) with adversary_eps, got none. Add adv"),
        ({"adversary_epz": 0.1}, "unknown training option: .* got 'adversary_epz'. Did you mean 'adversary_eps'"),
        ({"adversary": "pgd", "adversary_eps": "8/255"}, "adversary_eps: expected a finite number > 0, got '8/255'"),
    ],
)
def test_overrides_that_do_not_fit(changes, message):
    with pytest.raises(TrainingError, match=message):
        recipe("resnet", "digits").overrides(**changes)
    with pytest.raises(TrainingError, match=message):
        adversary_of(changes, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attack": "fgsm"}, "unknown adversary: expected one of pgd, sensitivity, got 'fgsm'"),
        ({"norm": "l1"}, "unknown norm of the adversary: expected one of l2, linf, got 'l1'"),
        ({"eps": 0.0}, "training option adversary_eps: expected a finite number > 0, got 0.0"),
        ({"steps": 0}, "training option adversary_steps: expected a whole number ≥ 1, got 0"),
        ({"steps": 2.5}, "training option adversary_steps: expected a whole number ≥ 1, got 2.5"),
        ({"step_size": -0.1}, "training option adversary_step_size: expected a finite number > 0, got -0.1"),
        ({"fraction": 0}, "training option adversary_fraction: expected a finite number > 0, got 0"),
        ({"fraction": 1.5}, r"training option adversary_fraction: expected a number in \(0, 1\], got 1.5"),
        ({"random_start": 1}, "training option adversary_random_start: expected true or false, got 1"),
        (
            {"attack": "sensitivity", "step_size": 0.1},
            "training option adversary_step_size: expected none, got 0.1. Only 'pgd' takes steps of a given size.",
        ),
    ],
)
def test_bad_options(values, message):
    with pytest.raises(TrainingError, match=message):
        Adversary(**{"eps": 0.1, **values})


def test_what_is_no_adversary_and_a_model_without_bounds():
    for config in (SGDConfig, NCGConfig):
        with pytest.raises(TrainingError, match="training option adversary: expected an Adversary or None, got 'pgd'"):
            config(adversary="pgd")
    message = r"adversarial training: expected a model with bounds, got Linear without them. Wrap it with"
    with pytest.raises(TrainingError, match=message):
        PGD.perturb(nn.Linear(3, 2), torch.rand(2, 3), torch.tensor([0, 1]), generator())
    with pytest.raises(FrozenInstanceError):
        PGD.eps = 0.2  # type: ignore[misc]
