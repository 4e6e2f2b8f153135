"""Models by name: every kind of `--model`, what is said about it, and what must not happen (code in a pickle)."""

import linecache
import os
import pickle
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustode.errors import ModelError, OptionError
from robustode.models import load_model, model_hash, peek, resolve_device, save_checkpoint, wrap
from robustode.models.resnet import ResNet

CODE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

def lightning():
    return nn.ModuleDict({"model": net()})

def masked():
    module = net()
    module.register_buffer("mask", torch.zeros(2))
    return module

def breaks():
    raise ValueError("weights/final.npy is gone")

def number():
    return 7

instance = net()
instance.bounds = (-1, 1)
"""
OPTIONS = {"bounds": (0, 1), "input_shape": (1, 2, 2)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(CODE)
    return tmp_path


@pytest.fixture
def checkpoint(folder):
    model = ResNet(input_shape=(1, 8, 8), classes=3, width=4, blocks=(1,))
    return save_checkpoint(model, folder / "own.safetensors", data="digits", provenance={"accuracy": 0.9})


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(1)
    return {"1.weight": torch.randn(3, 4, generator=generator), "1.bias": torch.randn(3, generator=generator)}


def error(spec, **options):
    with pytest.raises(ModelError) as caught:
        load_model(spec, **options)
    return str(caught.value)


def check(model, weights):
    x = torch.rand(5, 1, 2, 2)
    torch.testing.assert_close(model(x), x.flatten(1) @ weights["1.weight"].T + weights["1.bias"])
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_checkpoint_is_frozen_and_in_eval_mode(checkpoint):
    for spec in (checkpoint, str(checkpoint), "own.safetensors"):
        model = load_model(spec, default_bounds=(0, 255), sample=torch.rand(1, 1, 8, 8), device="cpu")
        assert isinstance(model, ResNet)
        assert model.bounds == (0.0, 1.0)
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
        assert model.notes == ()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("bounds", (0, 1)),
        ("classes", 3),
        ("input_shape", (1, 8, 8)),
        ("mean", 0.5),
        ("std", 0.5),
        ("normalise", "mnist"),
        ("output", "last"),
        ("arch", "python:nets.py:net"),
    ],
)
def test_checkpoint_refuses_the_options_of_a_users_module(checkpoint, option, value):
    message = error(checkpoint, **{option: value})
    assert f"options for a RobustODE checkpoint ('{checkpoint}'): expected none: it carries its own bounds" in message
    assert f"got {option}. Leave out --{option.replace('_', '-')}." in message


def test_zoo(checkpoint, monkeypatch):
    @contextmanager
    def zoo_file(name):
        assert name == "own"
        yield checkpoint

    monkeypatch.setattr("robustode.models.load.zoo_file", zoo_file)
    monkeypatch.setattr("robustode.models.load.zoo_names", lambda: ("own",))
    assert isinstance(load_model("zoo:own"), ResNet)
    assert "options for a RobustODE checkpoint ('zoo:own')" in error("zoo:own", classes=3)
    assert "expected none: it is for a plain state dict" in error("zoo:own", arch="python:nets.py:net")
    assert (peek("zoo:own")["label"], peek("zoo:own")["data"]) == ("own", "digits")
    assert error("own").endswith("Did you mean 'zoo:own'?")


def test_unknown_zoo_model():
    with pytest.raises(ModelError, match=r"unknown zoo model: expected one of .*got 'snode-digitz'"):
        load_model("zoo:snode-digitz")
    with pytest.raises(ModelError, match="unknown zoo model"):
        peek("zoo:snode-digitz")


def test_every_bundled_model_loads():
    from robustode.models.zoo import zoo_names

    for name in zoo_names():
        model = load_model(f"zoo:{name}")
        assert model(torch.zeros(1, *model.input_shape)).shape == (1, model.classes)


def test_factory_of_a_file_and_of_a_module():
    x = torch.rand(2, 1, 2, 2)
    for spec in ("python:nets.py:net", "python:nets:net"):
        model = load_model(spec, **OPTIONS)
        assert (model.classes, model.input_shape, model.bounds) == (3, (1, 2, 2), (0.0, 1.0))
        assert torch.equal(model(x), model.module(x))
        assert not any(p.requires_grad for p in model.parameters())


def test_bounds_argument_then_attribute_then_data():
    shape = {"input_shape": (1, 2, 2)}
    assert load_model("python:nets.py:instance", **shape).bounds == (-1.0, 1.0)
    assert load_model("python:nets.py:instance", default_bounds=(0, 2), **shape).bounds == (-1.0, 1.0)
    assert load_model("python:nets.py:instance", bounds=(0, 3), **shape).bounds == (0.0, 3.0)
    assert load_model("python:nets.py:net", default_bounds=(0, 2), **shape).bounds == (0.0, 2.0)
    assert "bounds of Sequential are not known" in error("python:nets.py:net", **shape)


def test_factory_errors():
    assert "model factory 'python:nets.py:breaks' raised ValueError: weights/final.npy is gone" in error(
        "python:nets.py:breaks", **OPTIONS
    )
    message = error("python:nets.py:number", **OPTIONS)
    assert "model factory 'python:nets.py:number': expected a torch.nn.Module, got int" in message
    assert "got no 'nett' there" in error("python:nets.py:nett", **OPTIONS)
    message = error("python:nets.py:net", arch="python:nets.py:net", **OPTIONS)
    assert "arch of 'python:nets.py:net': expected none: it is for a plain state dict" in message


def test_normalisation_presets():
    x = torch.rand(2, 1, 2, 2)
    model = load_model("python:nets.py:net", normalise="mnist", **OPTIONS)
    torch.testing.assert_close(model(x), model.module((x - 0.1307) / 0.3081))
    message = error("python:nets.py:net", normalise="mnist", mean=0.5, **OPTIONS)
    assert "normalisation: expected either --normalise or --mean and --std, got both" in message
    message = error("python:nets.py:net", normalise="cifar10", **OPTIONS)
    assert "normalisation mean: expected 1 value or 1, one per channel of (1, 2, 2), got 3 values" in message
    assert "unknown normalisation" in error("python:nets.py:net", normalise="svhn", **OPTIONS)


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin", "a.safetensors"])
def test_state_dict_with_arch(name, weights):
    (save_file if name.endswith("safetensors") else torch.save)(weights, name)
    model = load_model(name, arch="python:nets.py:net", **OPTIONS)
    check(model, weights)
    assert model.notes == ()
    message = error(name, **OPTIONS)
    assert "expected a RobustODE checkpoint, got a plain state dict. Name the code" in message
    assert "--arch python:FILE.py:factory" in message


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "ema"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_nested_and_prefixed_state_dicts_are_unwrapped_and_that_is_said(key, prefix, weights):
    torch.save({key: {prefix + name: value for name, value in weights.items()}, "epoch": 3}, "a.pt")
    model = load_model("a.pt", arch="python:nets.py:net", **OPTIONS)
    check(model, weights)
    assert model.notes == (f"took the state dict under '{key}'", f"took the prefix '{prefix}' off 2 names")


def test_deeper_nesting_two_prefixes_averages_and_other_dtypes(weights):
    stored = {f"module._orig_mod.{name}": value.double() for name, value in weights.items()}
    stored["n_averaged"] = torch.tensor(4)
    torch.save({"model": {"state_dict": stored}, "ema": {}}, "a.pt")
    model = load_model("a.pt", arch="python:nets.py:net", **OPTIONS)
    check(model, weights)
    assert model.notes == (
        "took the state dict under 'model' (not 'ema')",
        "took the state dict under 'state_dict'",
        "left out 'n_averaged', the counter of an averaged model",
        "took the prefix 'module.' off 2 names",
        "took the prefix '_orig_mod.' off 2 names",
        "converted torch.float64 tensors to the module's torch.float32",
    )


def test_a_prefix_of_the_module_itself_stays(weights):
    from robustode.models.factory import load_factory
    from robustode.models.statedict import load_state

    torch.save({"module.model." + name: value for name, value in weights.items()}, "a.pt")
    module = load_factory("python:nets.py:lightning")()
    assert load_state(module, "a.pt") == ("took the prefix 'module.' off 2 names",)
    assert torch.equal(module["model"][1].weight, weights["1.weight"])


def test_state_dict_is_loaded_strictly(weights):
    torch.save({"1.weight": torch.zeros(5, 4), "2.weight": torch.zeros(1)}, "a.pt")
    message = error("a.pt", arch="python:nets.py:net", **OPTIONS)
    assert "tensors of 'a.pt': expected those of Sequential" in message
    assert "missing: 1.bias (3,); unexpected: 2.weight (1,); wrong shape: 1.weight is (5, 4), not (3, 4)" in message


def test_non_finite_weights_are_refused_but_masks_pass(weights):
    mask = torch.tensor([0.0, float("-inf")])
    torch.save({**weights, "mask": mask}, "a.pt")
    assert torch.equal(load_model("a.pt", arch="python:nets.py:masked", **OPTIONS).module.mask, mask)
    torch.save({**weights, "mask": mask, "1.bias": torch.tensor([0.0, 1.0, float("inf")])}, "a.pt")
    assert "NaN or inf in 1.bias (1 of 3)" in error("a.pt", arch="python:nets.py:masked", **OPTIONS)
    torch.save({**weights, "mask": mask * float("nan")}, "a.pt")
    assert "NaN or inf in mask (2 of 2)" in error("a.pt", arch="python:nets.py:masked", **OPTIONS)


class Malicious:
    """A pickle that writes a marker file when it is loaded without care."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle2", "pickle4", "arch-less"])
def test_a_pickle_that_would_run_code_does_not_run(folder, weights, how):
    marker, path = folder / "marker", folder / "a.pt"
    stored = {"extra": Malicious(marker), **({} if how.startswith("pickle") else weights)}
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps(stored, protocol=int(how[-1])))
    else:
        torch.save(stored, path, _use_new_zipfile_serialization=how != "legacy")
    arch = None if how == "arch-less" else "python:nets.py:net"
    message = error(path, arch=arch, **OPTIONS)
    assert not marker.exists()
    if arch is not None:
        assert "Save the weights alone: torch.save(model.state_dict(), 'FILE.pt')" in message
    if how in ("torch", "legacy", "pickle2"):
        assert f"expected tensors only, got pickled code ({os.system.__module__}.system), which was not run" in message
    if how == "torch":  # so the file is indeed malicious
        torch.load(path, weights_only=False)
        assert marker.exists()


def test_whole_module_and_torchscript(weights):
    torch.save(nn.Linear(2, 2), "a.pt")
    message = error("a.pt", arch="python:nets.py:net", **OPTIONS)
    assert "got a whole pickled module (torch.nn.modules.linear.Linear), which was not run" in message
    assert "torch.save(model.state_dict()" in message


def test_torchscript():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save("b.pt")
    message = error("b.pt", arch="python:nets.py:net", **OPTIONS)
    assert "expected a state dict, got a TorchScript module" in message
    assert "torch.save(model.state_dict()" in message


@pytest.mark.parametrize(
    ("stored", "got"),
    [
        (torch.zeros(3), "expected a state dict, got a Tensor"),
        ([torch.zeros(3)], "expected a state dict, got a list"),
        ({"epoch": 3, "lr": 0.1}, "got entries epoch: int, lr: float"),
        ({}, "got an empty dict"),
        ({"state_dict": {}}, "got an empty dict"),
    ],
)
def test_files_that_are_no_state_dict(stored, got):
    torch.save(stored, "a.pt")
    assert got in error("a.pt", arch="python:nets.py:net", **OPTIONS)


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_truncated_torch_file(weights, keep):
    from pathlib import Path

    torch.save(weights, "a.pt")
    Path("a.pt").write_bytes(Path("a.pt").read_bytes()[:keep])
    message = error("a.pt", arch="python:nets.py:net", **OPTIONS)
    assert (
        "expected a state dict of torch.save, got one that is truncated, damaged or holds more than tensors" in message
    )


def test_missing_files(weights):
    torch.save(weights, "weights.pt")
    assert "Did you mean 'weights.pt'?" in error("weight.pt", arch="python:nets.py:net")
    assert "expected an existing file, got no such file" in error("qqqqqqqqqqqq.safetensors")
    with pytest.raises(ModelError, match="got no such file"):
        peek("qqqqqqqqqqqq.safetensors")


def test_module_object_is_wrapped_not_frozen():
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    model = load_model(module, **OPTIONS)
    assert model.module is module
    assert all(p.requires_grad for p in module.parameters())
    assert load_model(model) is model
    own = ResNet(input_shape=(1, 8, 8), classes=3)
    assert load_model(own) is own
    assert "options for a ResNet model" in error(own, classes=3)
    assert "got mean, std" in error(own, normalise="mnist")
    assert "expected none: it is for a plain state dict" in error(module, arch="python:nets.py:net", **OPTIONS)


def test_sample_gives_the_shape():
    model = load_model("python:nets.py:net", sample=torch.rand(1, 4), default_bounds=(0, 1))
    assert model.input_shape == (4,)


def test_output_choice():
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    assert "Choose with --output: binary" in error(module, **OPTIONS)
    assert load_model(module, output="binary", **OPTIONS).classes == 2


def test_peek_tells_label_data_and_accuracy(checkpoint, weights):
    seen = peek(checkpoint)
    assert (seen["label"], seen["data"], seen["accuracy"]) == ("own", "digits", 0.9)
    assert seen["header"].classes == 3
    torch.save(weights, "mine.v2.pt")
    save_file(weights, "mine.safetensors")
    module = nn.Linear(2, 2)
    labels = {
        "mine.v2.pt": "mine.v2",
        "mine.safetensors": "mine",
        "python:nets.py:net": "net",
        "python:gone.py:net": "net",
        module: "Linear",
        wrap(module, bounds=(0, 1), input_shape=(2,)): "Linear",
    }
    for spec, label in labels.items():
        assert peek(spec) == {"label": label, "header": None, "data": None, "accuracy": None}


def test_devices(checkpoint):
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cuda", "mps", "cpu")
    for name in ("cpuu", "cuda:x", "cpu:1", ""):
        with pytest.raises(OptionError, match=rf"unknown device: expected one of auto, cpu, cuda, mps, got '{name}'"):
            resolve_device(name)
    with pytest.raises(OptionError, match=r"Did you mean 'cpu'\?"):
        load_model(checkpoint, device="cpuu")


def test_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(OptionError, match=r"device: expected one that this machine has \(cpu, cuda\), got 'cuda:2'"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(OptionError, match=r"device: expected one that this machine has \(cpu\), got 'cuda'"):
        resolve_device("cuda")


def test_hash_sees_weights_configuration_and_nothing_else():
    def build(**change):
        return ResNet(**{"input_shape": (1, 8, 8), "classes": 3, "width": 4, "blocks": (1,), **change})

    reference = model_hash(build())
    assert len(reference) == 16
    assert int(reference, 16) >= 0
    assert model_hash(build().train()) == model_hash(build().eval()) == reference
    assert len({reference, *(model_hash(build(**c)) for c in ({"bounds": (0, 2)}, {"mean": (0.1,)}, {"seed": 1}))}) == 4
    model = build()
    with torch.no_grad():
        model.head.bias[0] += 1e-7
    assert model_hash(model) != reference
    assert model_hash(build().double()) != reference
    assert model_hash(build().to(memory_format=torch.channels_last)) == reference


def test_hash_of_a_users_module_sees_plain_attributes():
    class Solver(nn.Module):
        def __init__(self, tolerance):
            super().__init__()
            self.tolerance, self.weight = tolerance, nn.Parameter(torch.ones(2, 2))

        def forward(self, x):
            return x @ self.weight

    def build(tolerance=1e-3, **options):
        return wrap(Solver(tolerance), **{"bounds": (0, 1), "input_shape": (2,), **options})

    assert model_hash(build()) == model_hash(build())
    variants = [build(), build(1e-4), build(bounds=(0, 2)), build(mean=0.0), build(mean=0.5)]
    assert len({model_hash(model) for model in variants}) == len(variants)
    loaded = build()
    loaded.notes = ("took the prefix 'module.' off 2 names",)
    assert model_hash(loaded) == model_hash(build())


def test_an_edited_forward_is_another_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = """
import torch
class Net(torch.nn.Module):
    bounds, classes, input_shape = (0.0, 1.0), 2, (3,)
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.eye(2, 3))
    def forward(self, x):
        return x @ self.w.t()
def make():
    return Net()
"""
    hashes = []
    for text in (code, code, code.replace("x @ self.w.t()", "2 * x @ self.w.t()")):
        (tmp_path / "net.py").write_text(text)
        linecache.clearcache()
        model = load_model("python:net.py:make", sample=torch.zeros(1, 3))
        hashes.append(model_hash(model))
    assert hashes[0] == hashes[1]
    assert hashes[1] != hashes[2]
