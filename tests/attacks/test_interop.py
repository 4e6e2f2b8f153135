"""The sensitivity attack through the doors of other tools: exact distances, their conventions, the model as it was."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from robustode.attacks.adapters.foolbox import import_foolbox
from robustode.attacks.base import Status
from robustode.attacks.interop import FoolboxSensitivity, TorchattacksSensitivity, sensitivity_attack
from robustode.attacks.norms import distance
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.errors import AttackError, BudgetError, MissingDependency, ModelError
from robustode.sensitivity.linearise import FusedLinearisation
from tests.attacks.adapter_problems import SmallNet, boxed_affine, exact_distance
from tests.problems import random_points, random_snode

foolbox = import_foolbox()
MISSING = """
import sys
sys.modules["torchattacks"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torchattacks" else found(name, package)
from robustode.attacks.interop import FoolboxSensitivity, sensitivity_attack
from robustode.errors import MissingDependency
try:
    from robustode.attacks.interop import TorchattacksSensitivity
except MissingDependency as error:
    sys.stdout.write(str(error))
"""


def by_function(model, x, y, *, bounds, norm="l2", target=None):
    if target is None:
        return sensitivity_attack(model, x, y, norm=norm, bounds=bounds)
    return sensitivity_attack(model, inputs=x, labels=y, targets=target, targeted=True, norm=norm, bounds=bounds)


def by_torchattacks(model, x, y, *, bounds, norm="l2", target=None):
    attack = TorchattacksSensitivity(model, norm=norm, bounds=bounds)
    if target is not None:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack(x, y if target is None else target)


def by_foolbox(model, x, y, *, bounds, norm="l2", target=None):
    criteria = foolbox.criteria
    criterion = criteria.Misclassification(y) if target is None else criteria.TargetedMisclassification(target)
    model = foolbox.PyTorchModel(model, bounds=bounds, device="cpu")
    return FoolboxSensitivity(norm=norm)(model, x, criterion, epsilons=None)[0]


DOORS = {"function": by_function, "torchattacks": by_torchattacks, "foolbox": by_foolbox}
doors = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


def bare(model) -> nn.Module:
    """The same affine map as a module that knows neither its box nor its classes."""
    linear = nn.Linear(model.weight.shape[1], model.classes, dtype=model.weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(model.weight)
        linear.bias.copy_(model.bias)
    return nn.Sequential(nn.Flatten(), linear).eval()


def exact(dtype):
    return 1e-4 if dtype == torch.float32 else 1e-8


@doors
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize(
    ("bounds", "classes", "shape", "dtype"),
    [
        ((0.0, 1.0), 2, (1, 3, 4), torch.float64),
        ((0.0, 1.0), 7, (1, 4, 5), torch.float32),
        ((-1.0, 2.0), 7, (9,), torch.float64),
        ((-1.0, 2.0), 2, (5,), torch.float32),
    ],
)
def test_exact_distances(door, norm, bounds, classes, shape, dtype):
    model, x, y = boxed_affine(bounds, classes, shape, dtype)
    assert len(x) >= 4
    adv = door(bare(model), x, y, bounds=bounds, norm=norm)
    assert (adv.shape, adv.dtype) == (x.shape, dtype)
    assert bool((model(adv).argmax(1) != y).all())
    ratio = distance(x, adv, norm) / exact_distance(model, x, y, norm)
    assert ratio.min() >= 1 - exact(dtype)
    assert ratio.max() <= 1 + 2e-3


@doors
def test_targets(door):
    model, x, y = boxed_affine((-1.0, 2.0), 7, (9,))
    radii = torch.stack([exact_distance(model, x, y, "l2", torch.full_like(y, k)) for k in range(7)], dim=1)
    radius, target = radii.min(1)
    target[0] = y[0]  # reached before the attack began
    wrong = (target + 1) % 7  # labels play no part
    adv = door(bare(model), x, wrong, bounds=(-1.0, 2.0), target=target)
    assert torch.equal(model(adv).argmax(1), target)
    assert torch.equal(adv[0], x[0])
    ratio = (distance(x, adv, "l2") / radius)[1:]
    assert ratio.min() >= 1 - 1e-8
    assert ratio.max() <= 1 + 2e-3


@doors
def test_far_targets(door):
    model, x, y = boxed_affine((-1.0, 2.0), 7, (9,))
    target = (y + 3) % 7
    adv = door(bare(model), x, y, bounds=(-1.0, 2.0), target=target)
    reached = model(adv).argmax(1) == target
    assert reached.sum() >= 3
    assert torch.equal(adv[~reached], x[~reached])
    radius = exact_distance(model, x, y, "l2", target)[reached]
    assert bool((distance(x, adv, "l2")[reached] >= radius * (1 - 1e-8)).all())  # other classes and the box are active


@doors
def test_the_same_as_the_attack_itself_on_an_snode(door, monkeypatch):
    model = random_snode(scale=2.0, dtype=torch.float32)
    x = random_points(model.input_shape, 12, dtype=torch.float32)
    y = model(x).argmax(1)
    expected = SensitivityAttack()(model, x, y)
    fused, pull = [], FusedLinearisation._pull
    monkeypatch.setattr(FusedLinearisation, "_pull", lambda self, w: fused.append(1) or pull(self, w))
    adv = door(model, x, y, bounds=model.bounds)
    assert torch.equal(adv, expected.x_adv)
    assert expected.success.sum() >= 6
    assert fused  # all classes in one sweep


@doors
def test_the_model_is_left_as_it_was(door):
    model = SmallNet((0.0, 1.0))
    model.conv.bias.requires_grad_(False)
    x = random_points(model.input_shape, 4, dtype=torch.float32)
    y = model(x).argmax(1)
    model.train()
    model.norm.eval()
    flags = [part.training for part in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match="training mode") if door is by_foolbox else nothing():
        adv = door(model, x, y, bounds=(0.0, 1.0))
    if door is not by_torchattacks:  # the library itself calls model.train() afterwards
        assert [part.training for part in model.modules()] == flags
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [
        name != "conv.bias" for name, _ in model.named_parameters()
    ]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert bool((model.eval()(adv).argmax(1) != y).any())  # attacked in eval mode, where dropout does nothing


def nothing():
    import contextlib

    return contextlib.nullcontext()


@doors
def test_failures_and_wrong_labels_return_the_input(door):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, dtype=torch.float64))
    with torch.no_grad():
        linear[1].weight.zero_()  # a constant classifier: class 2
        linear[1].bias.copy_(torch.arange(3))
    x = random_points((4,), 3)
    for label in (2, 0):
        assert torch.equal(door(linear.eval(), x, torch.full((3,), label), bounds=(0.0, 1.0)), x)


def test_function_takes_functions_and_a_target_for_all():
    model, x, y = boxed_affine((-1.0, 2.0), 7, (9,))
    for function in (model.forward, bare(model), lambda z: model(z)):
        adv = sensitivity_attack(function, x, y.int(), bounds=(-1, 2))
        assert torch.equal(adv, SensitivityAttack()(model, x, y).x_adv)
    one = sensitivity_attack(model, inputs=x, labels=y, targets=3, targeted=True)
    assert torch.equal(one, sensitivity_attack(model, x, torch.full_like(y, 3), targeted=True))  # adv-lib
    assert bool((model(one).argmax(1) == 3).any())


def test_function_within_a_budget():
    model, x, y = boxed_affine((0.0, 1.0), 7)
    radius = exact_distance(model, x, y, "linf")
    eps = float(radius.sort().values[2:4].mean())  # between two distances: at one itself, rounding decides
    adv = sensitivity_attack(model, x, y, norm="linf", eps=eps)
    found = model(adv).argmax(1) != y
    assert torch.equal(found, radius <= eps)
    assert distance(x, adv, "linf").max() <= eps * (1 + 1e-5)


def test_function_messages():
    model, x, y = boxed_affine((-1.0, 2.0), 7, (9,))
    with pytest.raises(AttackError, match="targets: expected None without targeted=True"):
        sensitivity_attack(model, x, y, targets=y)
    with pytest.raises(AttackError, match="labels or targets: expected integers of shape"):
        sensitivity_attack(model, x, y[:-1])
    with pytest.raises(AttackError, match="labels or targets: expected integers of shape"):
        sensitivity_attack(model, x, y.double())
    with pytest.raises(AttackError, match="labels: expected a class for each input"):
        sensitivity_attack(model, x, None)
    with pytest.raises(AttackError, match=r"inside the model's bounds \[0, 1\]"):
        sensitivity_attack(bare(model), x, y)
    with pytest.raises(BudgetError, match="eps"):
        sensitivity_attack(model, x, y, eps=-1.0)
    snode = random_snode()
    with pytest.raises(ModelError, match="bounds of SNODE: expected its own"):
        sensitivity_attack(snode, random_points((1, 3, 4), 2), torch.zeros(2, dtype=torch.long), bounds=(-1, 2))


def test_torchattacks_modes(capsys):
    model, x, y = boxed_affine((0.0, 1.0), 7)
    attack = TorchattacksSensitivity(bare(model))
    assert attack.result is None
    assert "norm='l2'" in repr(attack)
    attack.set_mode_targeted_least_likely(quiet=True)
    with torch.no_grad():
        least = model(x).argmin(1)
    adv = attack(x, y)
    done = attack.result.success
    assert done.any()
    assert torch.equal(model(adv).argmax(1)[done], least[done])
    attack.set_mode_targeted_random(quiet=True)
    adv = attack(x)
    assert attack.result.success.any()
    attack.set_mode_targeted_by_function(lambda images, labels: (labels + 1) % 7, quiet=True)
    adv = attack(x, y)
    done = attack.result.success
    assert torch.equal(model(adv).argmax(1)[done], (y[done] + 1) % 7)
    attack.set_mode_default()
    assert torch.equal(attack(x, y), SensitivityAttack()(model, x, y).x_adv)
    with pytest.raises(AttackError, match="labels: expected a class"):
        attack(x)
    attack.set_model_training_mode(model_training=True)
    with pytest.raises(AttackError, match="set_model_training_mode: expected eval mode"):
        attack(x, y)


def test_torchattacks_normalisation_and_save(tmp_path, capsys):
    """The library hands over normalised inputs, and wants normalised adversarials back."""
    plain, x, y = boxed_affine((0.0, 1.0), 7, dtype=torch.float32)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 0.0, 1.0  # rounding takes these out of the box
    y = plain(x).argmax(1)
    mean, std = torch.tensor([0.3]), torch.tensor([0.7])
    inner = nn.Sequential(nn.Flatten(), nn.Linear(20, 7)).eval()
    with torch.no_grad():
        inner[1].weight.copy_(plain.weight * std)
        inner[1].bias.copy_(plain.bias + plain.weight.sum(1) * mean)
    attack = TorchattacksSensitivity(inner)
    attack.set_normalization_used(mean=[0.3], std=[0.7])
    normalised = (x - mean) / std
    adv = attack(normalised, y)
    expected = SensitivityAttack()(plain, x, y)
    assert torch.equal(inner(adv).argmax(1), expected.adv_pred)
    assert torch.allclose(adv * std + mean, expected.x_adv, atol=1e-4)
    assert torch.allclose(attack.result.distance, expected.distance, rtol=1e-2)  # in raw units
    attack.save([(normalised, y), (normalised[:2], y[:2])], str(tmp_path / "adv.pt"), verbose=False)
    saved = torch.load(tmp_path / "adv.pt")
    assert torch.allclose(saved["adv_inputs"][: len(x)], expected.x_adv, atol=1e-4)
    assert len(saved["labels"]) == len(x) + 2


def test_missing_torchattacks():
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == str(MissingDependency("torchattacks", "torchattacks"))


def test_unknown_name():
    import robustode.attacks.interop as interop

    with pytest.raises(AttributeError, match="no attribute 'ARTSensitivity'"):
        _ = interop.ARTSensitivity


def test_foolbox_epsilons():
    model, x, y = boxed_affine((-1.0, 2.0), 7, (9,))
    fmodel = foolbox.PyTorchModel(bare(model), bounds=(-1.0, 2.0), device="cpu")
    attack = FoolboxSensitivity(norm="linf")
    assert attack.distance is foolbox.distances.linf
    radius = exact_distance(model, x, y, "linf")
    epsilons = [float(radius.min()) * 0.99, float(radius.median()) * 1.01, float(radius.max()) * 1.01]
    _, clipped, success = attack(fmodel, x, y, epsilons=epsilons)  # labels stand for Misclassification
    for eps, points, found in zip(epsilons, clipped, success, strict=True):
        assert torch.equal(found, radius <= eps)
        assert distance(x, points, "linf").max() <= eps * (1 + 1e-9)
    assert attack.result.success.all()
    assert torch.allclose(attack.result.distance, radius, rtol=2e-3)
    again = attack.repeat(2)(fmodel, x, y, epsilons=epsilons)[2]
    assert torch.equal(again, success)
    import eagerpy

    raw = attack.run(fmodel, eagerpy.astensor(x), foolbox.criteria.Misclassification(eagerpy.astensor(y)))
    assert isinstance(raw, eagerpy.Tensor)


def test_foolbox_preprocessing_in_front_of_an_snode():
    """The network itself is taken only where the foolbox model adds nothing to it."""
    snode = random_snode(scale=2.0)
    x = random_points(snode.input_shape, 8)
    fmodel = foolbox.PyTorchModel(snode, bounds=(0, 1), device="cpu", preprocessing={"mean": 0.1, "std": 1.25})
    y = fmodel(x).argmax(1)
    _, adv, success = FoolboxSensitivity()(fmodel, x, y, epsilons=None)
    assert success.sum() >= 4
    assert torch.equal(fmodel(adv).argmax(1) != y, success)
    moved = fmodel.transform_bounds((-1.0, 3.0))
    z = x * 4 - 1
    _, adv, success = FoolboxSensitivity()(moved, z, y, epsilons=None)
    assert success.sum() >= 4
    assert adv.min() < 0 or adv.max() > 1


def test_foolbox_messages():
    model, x, y = boxed_affine((0.0, 1.0), 7)
    fmodel, attack = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), FoolboxSensitivity()
    assert "norm='l2'" in repr(attack)
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
        attack(fmodel, x, y, epsilons=None, steps=3)
    with pytest.raises(AttackError, match="labels of Misclassification: expected shape"):
        attack(fmodel, x, y[:2], epsilons=None)
    with pytest.raises(AttackError, match="inputs: expected PyTorch tensors, got ndarray"):
        attack.run(fmodel, x.numpy(), foolbox.criteria.Misclassification(y))

    class Other(foolbox.criteria.Criterion):
        def __call__(self, perturbed, outputs):
            return outputs

        def __repr__(self):
            return "Other"

    with pytest.raises(AttackError, match=r"foolbox criterion: expected one of Misclassification, .* got Other"):
        attack.run(fmodel, x, Other())


def test_result_of_targets_already_reached():
    model, x, y = boxed_affine((0.0, 1.0), 2)
    attack = FoolboxSensitivity()
    fmodel = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    target = torch.zeros_like(y)
    attack(fmodel, x, foolbox.criteria.TargetedMisclassification(target), epsilons=None)
    expected = [Status.MISCLASSIFIED if label == 0 else Status.SUCCESS for label in y.tolist()]
    assert list(attack.result.status) == expected
    assert bool((attack.result.distance[y == 0] == 0).all())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_a_gpu(dtype):
    model, x, y = boxed_affine((-1.0, 2.0), 7, (9,), dtype)
    plain, radius = bare(model).cuda(), exact_distance(model, x, y, "l2")
    attack = TorchattacksSensitivity(plain, bounds=(-1.0, 2.0))
    fmodel = foolbox.PyTorchModel(plain, bounds=(-1.0, 2.0), device="cuda")
    points = [
        sensitivity_attack(lambda z: plain(z), x.cuda(), y, bounds=(-1.0, 2.0)),
        attack(x, y),  # the library moves the inputs
        FoolboxSensitivity()(fmodel, x.cuda(), y.cuda(), epsilons=None)[0],
    ]
    for adv in points:
        assert adv.is_cuda
        assert torch.allclose(distance(x.cuda(), adv, "l2").cpu(), radius, rtol=2e-3)


class NanBelow(nn.Module):
    """Affine logits; NaN where the first coordinate is below 0.2."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        self.linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    def forward(self, x):
        return torch.where(x[:, :1] < 0.2, torch.nan, self.linear(x))


@doors
def test_a_first_sample_without_an_answer_does_not_stop_the_batch(door):
    x = torch.tensor([[0.1, 0.5], [0.8, 0.5]])
    adv = door(NanBelow(), x, torch.tensor([0, 0]), bounds=(0.0, 1.0))
    assert adv.isfinite().all()
    assert torch.allclose((adv[1] - x[1]).norm(), torch.tensor(0.15 * 2**0.5), rtol=1e-3)
