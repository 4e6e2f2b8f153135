"""From a protocol to a plan: what is resolved, what is refused, and that nothing is written."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from robustode.data import export
from robustode.errors import AttackError, BudgetError, DataError, MissingDependency, ModelError, ProtocolError
from robustode.evaluation.plan import make_plan
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.selection import select_attacks, unique_names
from robustode.models import model_hash, save_checkpoint
from tests.evaluation.problem import affine, as_data, forms, plan_of, refused, save_npz
from tests.problems import random_affine, random_snode

LINF = (0.01, 0.02, 0.05, 0.1)
L2 = tuple(pytest.approx(eps * 12**0.5 / 2) for eps in LINF)


def checkpoint(path, data="digits", *, accuracy=0.9, shape=(1, 8, 8), seed=0, **config):
    model = random_snode(input_shape=shape, classes=10, dtype=torch.float32, seed=seed, **config)
    return str(save_checkpoint(model, path, data=data, provenance={"accuracy": accuracy, "command": "train"}))


def plan(**values):
    return make_plan(build_protocol({"attacks": "none", **values}))


def test_a_checkpoint_brings_its_data_and_budgets(tmp_path):
    one = checkpoint(tmp_path / "one.safetensors")
    made = plan(models=[one], attacks="standard", limit=20)
    assert (made.data.name, made.data.split, len(made.data)) == ("digits", "test", 20)
    assert made.budgets == {"linf": (0.05, 0.1, 0.2), "l2": (0.25, 0.5, 1.0)}
    (model,) = made.models
    assert (model.label, model.spec, model.arch, model.header_accuracy) == ("one", one, "snode", 0.9)
    assert model.hash == model_hash(model.module)
    assert model.provenance["command"] == "train"
    assert not model.module.training


def test_labels_of_repeated_models(tmp_path):
    files = [checkpoint(tmp_path / folder / "one.safetensors") for folder in ("a", "b")]
    entries = [files[0], {"model": files[1]}, {"model": files[0], "label": "one#2"}]
    made = plan(models=entries, limit=5)
    assert [model.label for model in made.models] == ["one", "one#2", "one#2#2"]
    assert unique_names(["a", "b", "a", "a"]) == ["a", "b", "a#2", "a#3"]


def test_models_that_name_different_data(tmp_path):
    files = [checkpoint(tmp_path / f"{name}.safetensors", name) for name in ("digits", "mnist14")]
    expected = (
        "the models name different data: expected one data set for all, got digits: digits, mnist14: mnist14. "
        "Choose with --data, for example --data mnist."
    )
    refused(DataError, expected, lambda: plan(models=files))
    unnamed = checkpoint(tmp_path / "unnamed.safetensors", None)
    refused(
        DataError, "no data given: expected --data, or checkpoints that record it, got ", lambda: plan(models=[unnamed])
    )
    refused(DataError, "got digits: digits, unnamed: none recorded", lambda: plan(models=[files[0], unnamed]))
    assert plan(models=[files[0], unnamed], data="digits", limit=5).data.name == "digits"


def test_models_share_bounds_and_shape():
    small, wide = random_affine(dtype=torch.float32), random_affine(dtype=torch.float32, bounds=(-1.0, 1.0))
    data = as_data(torch.rand(4, 1, 3, 4), torch.tensor([0, 1, 2, 3]), classes=4)
    with pytest.raises(ModelError) as caught:
        plan_of([small, wide], data)
    assert str(caught.value) == (
        "model 'Affine#2' beside 'Affine': expected bounds (0.0, 1.0) and input shape (1, 3, 4), "
        "got (-1.0, 1.0) and (1, 3, 4). Evaluate them in separate runs."
    )


def test_data_that_do_not_fit_the_model(tmp_path):
    model, data = affine()
    too_many = as_data(data.x, torch.full((30,), 3), classes=4)
    refused(
        DataError, "expected classes 0 to 2, as the model has, got labels up to 3", lambda: plan_of(model, too_many)
    )
    outside = (data.x.numpy() * 3, data.y.numpy())
    refused(DataError, "expected inputs inside the bounds [0, 1]", lambda: plan_of(model, outside))
    wrong = as_data(torch.rand(4, 2), torch.tensor([0, 1, 0, 1]))
    refused(ModelError, "expected samples of shape (1, 3, 4), got (2,)", lambda: plan_of(model, wrong))


@pytest.mark.parametrize("kind", ["tensors", "arrays", "path", "data"])
def test_data_objects(tmp_path, kind):
    """Data without bounds of their own take those of the model."""
    model, data = affine()
    given = {
        "tensors": (data.x, data.y),
        "arrays": (data.x.numpy(), data.y.numpy()),
        "path": str(tmp_path / "a.npz"),
        "data": data,
    }[kind]
    np.savez(tmp_path / "a.npz", x=data.x.numpy(), y=data.y.numpy())
    made = plan_of(model, given)
    assert torch.equal(made.data.x, data.x)
    assert made.data.bounds == (0.0, 1.0)


def test_module_objects_in_place_of_names(tmp_path):
    """A module object beside a checkpoint: the checkpoint keeps its label, data and recorded accuracy."""
    one = checkpoint(tmp_path / "one.safetensors")
    module = random_snode(input_shape=(1, 8, 8), classes=10, dtype=torch.float32)
    protocol = build_protocol({"models": ["SNODE", one], "attacks": "none", "limit": 5, "data": "digits"})
    first, second = make_plan(protocol, modules=[module, None]).models
    assert (first.label, first.spec, first.header_accuracy) == ("SNODE", "SNODE", None)
    assert first.module is module
    assert (second.label, second.header_accuracy) == ("one", 0.9)
    refused(
        ModelError, "modules: expected one for each of 2 entries, got 1", lambda: make_plan(protocol, modules=[module])
    )


def test_the_users_own_module_is_wrapped_and_named_by_its_class():
    model, data = affine()
    bare = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    made = plan_of([model, bare], data, eot=2)
    assert [one.arch for one in made.models] == ["Affine", "Sequential"]
    assert made.models[1].module.draws == 2
    assert made.models[1].hash != made.models[0].hash


def test_default_budgets_and_given_ones():
    model, data = affine()
    assert plan_of(model, data, attacks="standard").budgets == {"linf": LINF, "l2": L2}
    assert plan_of(model, data, attacks="minimal-l2").budgets == {"l2": L2}
    given = plan_of(model, data, attacks="standard", budgets={"l2": [0.5, 0.1]}).budgets
    assert given == {"linf": LINF, "l2": (0.1, 0.5)}
    assert plan_of(model, data).budgets == {}
    message = "budgets: expected norms of the attacks (l2), got 'linf'"
    refused(ProtocolError, message, lambda: plan_of(model, data, attacks="fgm-l2", budgets={"linf": 0.1}))
    message = "budgets: expected none, as there are no attacks, got 'linf'"
    refused(ProtocolError, message, lambda: plan_of(model, data, budgets={"linf": 0.1}))
    refused(
        ProtocolError,
        "budgets for norm l1: expected radii, got no default for it. Give them: --eps l1=...",
        lambda: plan_of(model, data, attacks="sensitivity", norms=["l1"]),
    )


def test_balls_that_are_larger_than_the_box():
    model, data = affine()
    message = (
        "budgets for norm linf: expected radii up to 1, the greatest distance in the box [0, 1], got 8. "
        "Radii are in the units of the inputs: 8/255 for inputs in [0, 1], 8 for inputs in [0, 255]."
    )
    refused(BudgetError, message, lambda: plan_of(model, data, attacks="standard", budgets={"linf": [4, 8]}))
    most = {"linf": [1.0], "l2": [12**0.5]}
    assert plan_of(model, data, attacks="standard", budgets=most).budgets["l2"] == (12**0.5,)
    wide = {"l2": [12**0.5 + 0.01]}
    refused(BudgetError, "radii up to 3.4641", lambda: plan_of(model, data, attacks="fgm-l2", budgets=wide))
    l1 = {"attacks": "sensitivity", "norms": ["l1"]}
    refused(BudgetError, "radii up to 12,", lambda: plan_of(model, data, **l1, budgets={"l1": [12.1]}))


def test_a_protocol_without_models():
    message = "expected at least one, got none. Name them in the protocol, or with --model, which repeats."
    refused(ProtocolError, message, lambda: plan(data="digits"))


def test_the_hash_is_of_what_the_numbers_depend_on(tmp_path):
    model, data = affine()
    same = plan_of(model, data, attacks="standard").hash
    assert plan_of(model, data, attacks="standard", title="words", allow_low_accuracy=True, outputs=[]).hash == same
    assert plan_of(model, data, attacks="standard", audit="full", transfer=["zoo:snode-digits"]).hash == same
    assert plan_of(random_like(model), data, attacks="standard").hash == same
    other_data = as_data(data.x.flip(0), data.y)
    changed = [
        plan_of(model, data, attacks="standard-l2"),
        plan_of(model, data, attacks="standard", seed=1),
        plan_of(model, data, attacks="standard", shard=7),
        plan_of(model, data, attacks="standard", eot=3),
        plan_of(model, data, attacks="standard", budgets={"l2": 0.3}),
        plan_of(model, data, attacks="standard", also=["deepfool-l2"]),
        plan_of(model, other_data, attacks="standard"),
    ]
    assert len({same, *(one.hash for one in changed)}) == len(changed) + 1


def random_like(model):
    return random_affine(model.classes, model.input_shape, seed=9, dtype=torch.float32)


def test_cards_twice_are_taken_once_and_others_renamed(tmp_path):
    chosen = select_attacks(build_protocol({"models": ["a"], "attacks": "standard", "also": ["fgm-l2", "standard-l2"]}))
    assert len(chosen.cards) == 17
    values = {"models": ["a"], "attacks": "sensitivity-l2", "also": ["sensitivity"], "norms": ["l2"]}
    names = [card.name for card in select_attacks(build_protocol({**values, "params": {"damping": 0.3}})).cards]
    assert names == ["sensitivity-l2", "sensitivity-l2#2"]


def test_cards_relative_to_the_protocol(tmp_path):
    forms(tmp_path)
    (tmp_path / "mine.toml").write_text(
        "title = 't'\nimplementation = 'python:forms.py:push'\nnorm = 'l2'\nkind = 'minimal'\n"
    )
    values = {"models": ["a"], "attacks": "mine", "base": str(tmp_path)}
    (card,) = select_attacks(build_protocol(values)).cards
    assert card.build(None).norm == "l2"


def test_parameters_need_a_shorthand():
    values = {"models": ["a"], "attacks": "standard", "params": {"steps": 3}}
    refused(AttackError, "expected none: the cards fix them, got steps", lambda: select_attacks(build_protocol(values)))
    values = {"models": ["a"], "attacks": "foolbox:L2PGD", "also": ["sensitivity-l2"], "norms": ["l2"]}
    one, two = select_attacks(build_protocol({**values, "params": {"steps": 3}})).cards
    assert (one.params, two.params) == ({"steps": 3}, {"setting": "fast"})
    values["params"] = {"stepz": 3}
    refused(AttackError, "Did you mean 'steps'?", lambda: select_attacks(build_protocol(values)))
    values = {"models": ["a"], "attacks": "standard", "norms": ["l4"]}
    refused(ProtocolError, "norms.0: expected one of l1, l2, linf, got 'l4'", lambda: build_protocol(values))


@pytest.mark.usefixtures("no_torchattacks")
def test_without_torchattacks_its_cards_are_skipped():
    chosen = select_attacks(build_protocol({"models": ["a"], "attacks": "standard"}))
    reason = "not installed (torchattacks)"
    assert chosen.skipped == tuple({"attack": name, "reason": reason} for name in ("fgsm-linf", "pgd-linf", "pgd-l2"))
    assert len(chosen.cards) == 14
    for name in ("pgd-linf", "torchattacks:PGD"):
        values = {"models": ["a"], "attacks": name, "norms": ["linf"]}
        refused(
            MissingDependency,
            'torchattacks is not installed. Install it with: pip install "robustode[torchattacks]"',
            lambda values=values: select_attacks(build_protocol(values)),
        )


def test_stored_sets(tmp_path):
    model, data = affine()
    folders = [tmp_path / folder / "adv" for folder in ("a", "b")]
    for folder in folders:
        export(folder, data, meta={"norm": "l2"})
    also = [str(folder) for folder in folders]
    made = plan_of(model, data, also=also)
    assert [one.name for one in made.attacks.stored] == ["stored-adv", "stored-adv#2"]
    assert set(made.budgets) == {"l2"}
    other = as_data(data.x, (data.y + 1) % 3, index=data.index)
    message = re.escape(f"adversarial data set '{folders[0]}'")
    with pytest.raises(
        DataError, match=message + r": expected samples of 'toy' \(test\), got 0 with their labels among 30"
    ):
        plan_of(model, other, also=also)
    elsewhere = as_data(data.x, data.y, index=data.index + 1000)
    refused(DataError, "got 0 with their labels among 0 with their index", lambda: plan_of(model, elsewhere, also=also))
    export(tmp_path / "clean", data)
    refused(
        DataError, "expected a norm in its dataset.json", lambda: plan_of(model, data, also=[str(tmp_path / "clean")])
    )
    (tmp_path / "empty").mkdir()
    refused(DataError, "no dataset.json", lambda: plan_of(model, data, also=[str(tmp_path / "empty")]))


def test_paths_beside_a_protocol_file(tmp_path):
    checkpoint(tmp_path / "one.safetensors", None, shape=(1, 3, 4))
    data = as_data(torch.rand(4, 1, 3, 4), torch.tensor([0, 1, 2, 3]), classes=10)
    save_npz(tmp_path / "points.npz", data)
    values = {"models": ["one.safetensors"], "data": "points.npz", "base": str(tmp_path)}
    made = plan(**values)
    assert made.models[0].label == "one"
    assert made.data.name == str(tmp_path / "points.npz")
