"""Checkpoints: exact round trips, nothing half written, and one clear error for every way a file can be wrong."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from robustode.errors import ModelError
from robustode.models import check_target, load_checkpoint, model_hash, read_header, save_checkpoint
from robustode.models.resnet import ResNet

PROVENANCE = {"command": "robustode train resnet", "seed": 3, "epochs": 2, "accuracy": 0.97, "versions": {"torch": "2"}}


def resnet(seed=1):
    return ResNet(input_shape=(1, 8, 8), classes=3, width=4, blocks=(1, 1), bounds=(-1, 1), seed=seed)


@pytest.fixture
def saved(tmp_path):
    return save_checkpoint(resnet(), tmp_path / "net.safetensors", data="digits", provenance=PROVENANCE)


def rewrite(path, *, header=None, tensors=None, **changes):
    """Write the checkpoint again with a changed header or changed tensors."""
    with safe_open(path, framework="pt") as file:
        stored = json.loads(file.metadata()["robustode"])
    text = header if header is not None else json.dumps({**stored, **changes})
    save_file({**load_file(path)} if tensors is None else tensors, path, metadata={"robustode": text})


def error(path):
    with pytest.raises(ModelError) as caught:
        load_checkpoint(path)
    return str(caught.value)


def test_round_trip_is_exact(saved):
    model = load_checkpoint(saved)
    assert isinstance(model, ResNet)
    assert not model.training
    assert model.config == resnet().config
    expected = resnet().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(model(x), resnet().eval()(x))


def test_header_says_where_it_came_from(saved):
    header = read_header(saved)
    assert (header.schema_version, header.arch, header.data) == (1, "resnet", "digits")
    assert (header.bounds, header.classes, header.input_shape) == ((-1.0, 1.0), 3, (1, 8, 8))
    assert header.provenance == PROVENANCE
    assert header.accuracy == 0.97
    assert header.config == resnet().config


def test_float64_keeps_its_dtype_also_in_derived_buffers(tmp_path):
    model = resnet().double()
    with torch.no_grad():
        model.head.bias += 1 / 3
    path = save_checkpoint(model, tmp_path / "net.safetensors", data=None, provenance={})
    again = load_checkpoint(path)
    assert torch.equal(again.head.bias, model.head.bias)
    assert again.mean.dtype == again.head.weight.dtype == torch.float64
    assert again(torch.rand(2, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64
    assert read_header(path).data is None
    assert read_header(path).accuracy is None


def test_snode_and_layered_round_trip(tmp_path):
    from robustode.models.layered import Layered
    from robustode.models.snode import SNODE

    for kind in (SNODE, Layered):
        model = kind(input_shape=(1, 4, 4), classes=3, steps=6, seed=2)
        path = save_checkpoint(model, tmp_path / f"{model.arch}.safetensors", data="digits", provenance=PROVENANCE)
        again = load_checkpoint(path)
        assert type(again) is kind
        assert model_hash(again) == model_hash(model)
        x = torch.rand(2, 1, 4, 4)
        assert torch.equal(again(x), model(x))


def test_existing_file_is_replaced_only_with_force(saved):
    before = saved.read_bytes()
    with pytest.raises(
        ModelError, match=r"expected a new file, got an existing file\. Choose another name or --force\."
    ):
        save_checkpoint(resnet(2), saved, data=None, provenance={})
    assert saved.read_bytes() == before
    save_checkpoint(resnet(2), saved, data=None, provenance={}, force=True)
    assert torch.equal(load_checkpoint(saved).head.weight, resnet(2).head.weight)


def test_a_failure_while_writing_leaves_the_old_file_and_no_other(saved, monkeypatch):
    before = saved.read_bytes()

    def breaks(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("robustode.models.checkpoint.save_file", breaks)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(resnet(2), saved, data=None, provenance={}, force=True)
    assert saved.read_bytes() == before
    assert [entry.name for entry in saved.parent.iterdir()] == ["net.safetensors"]


def test_target_is_checked_before_training(tmp_path, saved):
    new = tmp_path / "new" / "net.safetensors"
    assert check_target(new) == new
    assert save_checkpoint(resnet(), new, data=None, provenance={}).is_file()
    with pytest.raises(
        ModelError, match=r"expected a name that ends in \.safetensors, got 'a\.pt'\. Write '.*a\.safeten"
    ):
        check_target(tmp_path / "a.pt")
    (tmp_path / "dir.safetensors").mkdir()
    with pytest.raises(ModelError, match="got an existing folder"):
        check_target(tmp_path / "dir.safetensors", force=True)


def test_only_own_models_and_json_provenance_are_written(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(ModelError, match=r"expected a RobustODE architecture, got Linear\. Save it with torch\.save"):
        save_checkpoint(nn.Linear(2, 2), path, data=None, provenance={})
    for provenance in ({"cost": float("nan")}, {"cost": {1, 2}}):
        with pytest.raises(ModelError, match="provenance of a checkpoint: expected finite JSON values"):
            save_checkpoint(resnet(), path, data=None, provenance=provenance)
    assert not list(tmp_path.iterdir())


def test_missing_file_suggests_the_nearest(saved):
    message = error(saved.with_name("nett.safetensors"))
    assert "expected an existing file, got no such file" in message
    assert f"Did you mean '{saved}'?" in message
    assert "Did you mean" not in error(saved.with_name("zzzzzzzzzzzzzzzzzzzzzzzzzzz"))
    assert f"got no folder '{saved.parent / 'none'}'" in error(saved.parent / "none" / "net.safetensors")
    assert "expected a file, got a folder with net.safetensors" in error(saved.parent)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_file(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    assert "expected a complete safetensors file, got one that is truncated, damaged or of another format" in error(
        saved
    )


def test_file_of_another_format(saved):
    saved.write_bytes(b"not a model, though long enough to be one")
    assert "truncated, damaged or of another format" in error(saved)
    torch.save({"a": torch.zeros(1)}, saved)
    assert "expected safetensors, got a file that torch.save wrote. Rename it to .pt." in error(saved)


def test_plain_state_dict_is_not_ours(saved):
    save_file({"weight": torch.zeros(2, 2)}, saved)
    message = error(saved)
    assert "expected the header of a RobustODE checkpoint, got a plain state dict" in message
    assert "--arch python:FILE.py:factory" in message


@pytest.mark.parametrize("text", ["{", "[]", '"text"', "{}", "3"])
def test_damaged_header(saved, text):
    rewrite(saved, header=text)
    assert "expected JSON with a schema version, got damaged text" in error(saved)


def test_newer_and_older_schema(saved):
    rewrite(saved, schema=2)
    assert "expected schema 1, got schema 2. Update RobustODE: pip install -U robustode" in error(saved)
    rewrite(saved, schema=0)
    assert "expected schema 1, got schema 0. Train or export the model again." in error(saved)


def test_unknown_and_missing_header_keys(saved):
    rewrite(saved, colour="red", classes="many")
    message = error(saved)
    assert "classes: Input should be a valid integer" in message
    assert "colour: Extra inputs are not permitted (got 'red')" in message


def test_unknown_architecture(saved):
    rewrite(saved, arch="resnett")
    assert "unknown architecture: expected one of" in error(saved)
    assert "Did you mean 'resnet'?" in error(saved)


@pytest.mark.parametrize("change", [{"width": 0}, {"depth": 3}, {"classes": None}])
def test_invalid_configuration(saved, change):
    rewrite(saved, config={**read_header(saved).config, **change})
    message = error(saved)
    assert f"configuration in the header of '{saved}' is not valid: " in message
    assert next(iter(change)) in message


def test_header_that_contradicts_its_configuration(saved):
    rewrite(saved, bounds=[0, 1])
    message = error(saved)
    assert "expected one value of bounds, got (0.0, 1.0) beside (-1.0, 1.0) in its configuration" in message


def test_tensors_missing_extra_and_wrong_are_all_named(saved):
    tensors = load_file(saved)
    del tensors["head.bias"]
    tensors["head.weight"], tensors["tail"] = torch.zeros(5, 8), torch.zeros(2)
    rewrite(saved, tensors=tensors)
    message = error(saved)
    assert f"tensors of '{saved}': expected those of ResNet" in message
    assert "missing: head.bias (3,)" in message
    assert "unexpected: tail (2,)" in message
    assert "wrong shape: head.weight is (5, 8), not (3, 8)" in message


def test_many_missing_tensors_are_counted(saved):
    rewrite(saved, tensors={"tail": torch.zeros(2)})
    count = len(resnet().state_dict())
    assert f" and {count - 5} more; unexpected: tail (2,)" in error(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["head.weight", "stem.1.running_var"])
def test_non_finite_tensor(saved, name, value):
    tensors = load_file(saved)
    tensors[name].view(-1)[1] = value
    rewrite(saved, tensors=tensors)
    assert f"expected finite values, got NaN or inf in {name} (1 of {tensors[name].numel()})" in error(saved)
