"""What is judged is computed in full float32, whatever is allowed for the search; and float64 where it is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustode.errors import OptionError
from robustode.evaluation.judge import Judge
from robustode.evaluation.precision import full_precision, tf32
from robustode.models import load_model, model_hash
from robustode.models.wrap import wrap
from tests.cli.command import refused, robustode, works

BACKENDS = torch.backends
PLACES = {
    "products on a GPU": BACKENDS.cuda.matmul,
    "convolutions on a GPU": BACKENDS.cudnn.conv,
    "products on a CPU": BACKENDS.mkldnn.matmul,
    "convolutions on a CPU": BACKENDS.mkldnn.conv,
}


def precisions():
    return {name: place.fp32_precision for name, place in PLACES.items()}


@pytest.fixture
def restored():
    """What torch was set to, before and after."""
    before = torch.get_float32_matmul_precision(), BACKENDS.cudnn.allow_tf32
    yield
    BACKENDS.fp32_precision = "none"
    for place in (*PLACES.values(), BACKENDS.cudnn.rnn, BACKENDS.mkldnn.rnn):
        place.fp32_precision = "none"
    torch.set_float32_matmul_precision(before[0])
    BACKENDS.cudnn.allow_tf32 = before[1]


@pytest.fixture
def fast(restored):
    """Products of float32 tensors in bfloat16, where the processor has them, and in TF32 on a GPU."""
    torch.set_float32_matmul_precision("medium")


class Spy(nn.Module):
    """Remembers the precisions it was asked in, and looks at the older settings, as a model may."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(256, 3)
        self.seen = []

    def forward(self, x):
        self.seen.append(precisions())
        with BACKENDS.cudnn.flags(enabled=False):
            return self.linear(x)


def test_the_judge_multiplies_in_full_precision(fast):
    torch.manual_seed(0)
    spy = Spy().eval()
    model = wrap(spy, bounds=(0.0, 1.0), sample=torch.zeros(1, 256))
    x = torch.rand(64, 256)
    spy.seen.clear()
    logits = Judge(model).logits(x)
    assert spy.seen
    for seen in spy.seen:
        assert set(seen.values()) <= {"ieee", "none"}
    exact = x.double() @ spy.linear.weight.double().t() + spy.linear.bias.double()
    assert (logits - exact).abs().max() < 1e-5  # in bfloat16 it is 1e-3
    with torch.no_grad():
        model(x)
    allowed = {"products on a GPU": "tf32", "products on a CPU": "bf16"}  # again
    assert allowed.items() <= spy.seen[-1].items()


def low():
    BACKENDS.cudnn.conv.fp32_precision = "tf32"
    BACKENDS.cudnn.rnn.fp32_precision = "ieee"  # torch then refuses to read the older setting
    BACKENDS.mkldnn.conv.fp32_precision = "bf16"


SETTINGS = {
    "as torch starts": lambda: None,
    "older": lambda: torch.set_float32_matmul_precision("high"),
    "newer, for all": lambda: setattr(BACKENDS, "fp32_precision", "tf32"),
    "newer, one by one": low,
    "newer, of products alone": lambda: setattr(BACKENDS.cuda.matmul, "fp32_precision", "tf32"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_was_set_before_holds_again_also_after_an_error(name, restored):
    SETTINGS[name]()
    before = precisions()
    assert set(before.values()) & {"tf32", "bf16"}
    with full_precision():
        inside = precisions()
    assert set(inside.values()) <= {"ieee", "none"}
    assert precisions() == before
    for context in (full_precision, tf32):
        with pytest.raises(ZeroDivisionError), context():
            raise ZeroDivisionError
        assert precisions() == before
    with full_precision(), tf32():
        inside = precisions()
    assert precisions() == before
    if name in ("as torch starts", "older"):
        assert {inside[place] for place in ("products on a GPU", "convolutions on a GPU")} == {"tf32"}


def test_a_model_in_float64():
    single, double = load_model("zoo:snode-digits"), load_model("zoo:snode-digits", dtype="float64")
    x = torch.rand(5, 1, 8, 8)
    assert (single(x).dtype, double(x.double()).dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single(x).double(), double(x.double()), rtol=1e-4, atol=1e-4)
    assert model_hash(single) != model_hash(double)
    with pytest.raises(OptionError, match="unknown dtype: expected one of float32, float64, got 'float16'"):
        load_model("zoo:snode-digits", dtype="float16")


def test_a_run_in_float64_can_be_verified_in_float64(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    works("eval --model zoo:snode-digits --limit 20 --attacks fgm-l2 --audit none --dtype float64 --out r")
    assert "expected one of snode-digits" in robustode("verify r --model zoo:snode-digits --dtype float32").err
    document = works("verify r --model zoo:snode-digits --json").json  # in what the run computed in
    assert document["same_model"]
    assert document["held"] == document["points"] > 0
    assert refused("eval --model zoo:snode-digits --dtype half").startswith("evaluation: models.0.dtype: expected")
