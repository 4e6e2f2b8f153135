"""An sNODE under another solver: configurations, views, checkpoints, hashes, training."""

import json

import pytest
import torch

from robustode.errors import ModelError, TrainingError
from robustode.models import load_checkpoint, load_model, model_hash, peek, save_checkpoint
from robustode.models.layered import Layered
from robustode.models.snode import SNODE
from robustode.training.ncg import NCGConfig
from tests.problems import random_points, random_snode

SHAPE = (1, 3, 4)


def test_fixed_step_models_are_what_they_were():
    model = load_model("zoo:snode-digits")
    assert model_hash(model) == "88c6d70cf978b0cf"
    assert model_hash(load_model("zoo:layered-digits")) == "9c02c591ef8a58cd"
    assert model.config == peek("zoo:snode-digits")["header"].config
    assert not {"rtol", "atol", "backend"} & set(model.config)


def test_defaults_stand_in_the_configuration():
    model = SNODE(input_shape=(4,), classes=2, steps=3, method="dopri5", atol=1e-7)
    assert model.config["method"] == "dopri5"
    assert (model.config["rtol"], model.config["atol"], model.config["backend"]) == (1e-5, 1e-7, "torchode")
    assert "dopri5 (torchode), rtol 1e-05, atol 1e-07" in repr(model)


def test_a_view_shares_the_weights_and_keeps_what_is_not_changed():
    model = random_snode()
    view = model.with_solver(method="dopri5", rtol=1e-8)
    assert view.weight is model.weight
    assert view.training is model.training
    tighter = view.with_solver(atol=1e-9)
    assert (tighter.solver.method, tighter.solver.rtol, tighter.solver.atol) == ("dopri5", 1e-8, 1e-9)
    back = view.with_solver(method="euler")
    assert back.config == model.config
    x = random_points(SHAPE, 3)
    assert torch.equal(back(x), model(x))
    assert (view(x) - model(x)).abs().max() > 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "dopri5", "rtol": 1e-4},
        {"method": "dopri8", "backend": "torchdiffeq", "atol": 1e-7},
        {"method": "rk4", "steps": 20},
        {"steps": 2},  # fewer than the knots
    ],
)
def test_round_trip(tmp_path, changes):
    view = random_snode(knots=4).with_solver(**changes)
    path = save_checkpoint(view, tmp_path / "d.safetensors", data=None, provenance={})
    again = load_checkpoint(path)
    assert again.config == view.config
    assert json.loads(json.dumps(again.config)) == again.config
    assert {key: again.config[key] for key in changes} == changes
    assert model_hash(again) == model_hash(view) != model_hash(random_snode(knots=4))
    x = random_points(SHAPE, 3)
    assert torch.equal(again(x), view(x))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rtol": 1e-3}, "rtol of the fixed-step method 'euler': expected none. Leave it out, or choose an adaptive"),
        ({"method": "rk4", "backend": "torchode"}, "backend of the fixed-step method 'rk4'"),
        ({"method": "dopri5", "rtol": -1.0}, "rtol: expected a finite number > 0, got -1.0"),
        ({"method": "bosh3"}, "The backend 'torchdiffeq' has it (there a sample's steps depend on its batch)."),
        ({"method": "dopri"}, "unknown solver: expected one of adaptive_heun, bosh3, dopri5, dopri8, euler"),
    ],
)
def test_wrong_configurations(config, message):
    with pytest.raises(ModelError) as error:
        SNODE(input_shape=(4,), classes=2, **config)
    assert message in str(error.value)
    with pytest.raises(ModelError):
        SNODE(input_shape=(4,), classes=2).with_solver(**config)


def test_wrong_views():
    model = random_snode()
    with pytest.raises(ModelError, match=r"steps of the adaptive method 'dopri5': expected none, got 9"):
        model.with_solver(method="dopri5", steps=9)
    with pytest.raises(ModelError, match=r"steps of the adaptive method 'tsit5'.* choose a fixed-step method"):
        model.with_solver(method="tsit5").at_steps(9)
    layered = Layered(input_shape=(4,), classes=2, steps=3)
    for refused in (lambda: layered.at_steps(3), lambda: layered.with_solver(method="dopri5")):
        with pytest.raises(ModelError, match="a layered model cannot be re-discretised"):
            refused()


def test_what_needs_a_fixed_grid_says_so():
    model = random_snode().with_solver(method="dopri5")
    with pytest.raises(ModelError, match=r"fused sweep: expected a fixed-step method, got dopri5 .*with_solver"):
        _ = model.flow
    with pytest.raises(TrainingError, match=r"NCG: expected a fixed-step method, got dopri5 .*robustode deploy"):
        NCGConfig().trainer(model, 1)
