"""What is judged is computed in full float32, whatever is allowed for the search; and float64 where it is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustode.errors import OptionError
from robustode.evaluation.judge import Judge
from robustode.evaluation.precision import full_precision
from robustode.models import load_model, model_hash
from robustode.models.wrap import wrap
from tests.cli.command import refused, robustode, works


@pytest.fixture
def fast(monkeypatch):
    """Products of float32 tensors in bfloat16, where the processor has them, and in TF32 on a GPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


class Spy(nn.Module):
    """Remembers the precision it was asked in."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(256, 3)
        self.seen = set()

    def forward(self, x):
        self.seen.add((torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision))
        return self.linear(x)


def test_the_judge_multiplies_in_full_precision(fast):
    torch.manual_seed(0)
    spy = Spy().eval()
    model = wrap(spy, bounds=(0.0, 1.0), sample=torch.zeros(1, 256))
    x = torch.rand(64, 256)
    spy.seen.clear()
    logits = Judge(model).logits(x)
    assert spy.seen == {("ieee", "ieee")}
    exact = x.double() @ spy.linear.weight.double().t() + spy.linear.bias.double()
    assert (logits - exact).abs().max() < 1e-5  # in bfloat16 it is 1e-3
    with torch.no_grad():
        model(x)
    assert ("tf32", "bf16") in spy.seen  # what was allowed is allowed again


def test_what_was_set_before_holds_again_also_after_an_error():
    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    with pytest.raises(ZeroDivisionError), full_precision():
        raise ZeroDivisionError(torch.backends.cudnn.conv.fp32_precision)
    assert (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision) == before
    assert torch.backends.cudnn.allow_tf32 in (True, False)  # torch refuses to say where its flags disagree


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
    assert "expected one of snode-digits" in robustode("verify r --model zoo:snode-digits").err
    document = works("verify r --model zoo:snode-digits --dtype float64 --json").json
    assert document["same_model"]
    assert document["held"] == document["points"] > 0
    assert refused("eval --model zoo:snode-digits --dtype half").startswith("evaluation: models.0.dtype: expected")
