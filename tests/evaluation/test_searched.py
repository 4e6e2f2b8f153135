"""Attacks search in a shorter precision where that is asked for; what they find is judged in full."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from robustode.api import evaluate, merge_parts, run_part, run_protocol
from robustode.errors import OptionError, ProtocolError
from robustode.evaluation.counting import Counted
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.searched import Autocast, searched
from robustode.models import load_model
from robustode.solvers.rounded import Rounded
from tests.cli.command import refused
from tests.problems import random_affine, random_points, random_snode

SNODE, RESNET = "zoo:snode-digits", "zoo:resnet-digits"
LIMIT = 60


def run(model, card, precision, **options):
    found = evaluate(model, attacks=card, limit=LIMIT, audit="none", search_precision=precision, **options)
    return found, found.records.sort_values(["eps", "sample"]).reset_index(drop=True)


@pytest.fixture
def asked(monkeypatch):
    """Rows that were asked in bfloat16, of modules and of the products of an sNODE."""
    rows = {"autocast": 0, "rounded": 0}
    forward, product = Autocast.forward, Rounded.product

    def counted_forward(self, x):
        rows["autocast"] += len(x)
        return forward(self, x)

    def counted_product(self, z, weight):
        rows["rounded"] += len(z)
        return product(self, z, weight)

    monkeypatch.setattr(Autocast, "forward", counted_forward)
    monkeypatch.setattr(Rounded, "product", counted_product)
    return rows


@pytest.mark.parametrize(("model", "how"), [(SNODE, "rounded"), (RESNET, "autocast")])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_sensitivity_attack_comes_back_to_the_model_itself(model, how, norm, asked):
    _, full = run(model, f"sensitivity-{norm}", "full")
    assert asked == {"autocast": 0, "rounded": 0}
    _, short = run(model, f"sensitivity-{norm}", "bfloat16")
    assert asked[how] > 5 * LIMIT
    assert (short["status"] == full["status"]).all()
    ratio = (short["distance"] / full["distance"])[full["status"] == "success"]
    assert ratio.median() == pytest.approx(1, abs=5e-3)
    assert np.exp(np.log(ratio).mean()) < 1.01
    # every point is one of the model in full, at its boundary: bfloat16 could not tell
    broken = short[short["status"] == "success"]
    assert (broken["adv_margin"] < 0).all()
    assert (broken["adv_margin"].abs() / broken["clean_margin"]).median() < 1e-3


@pytest.mark.parametrize(("model", "how"), [(SNODE, "rounded"), (RESNET, "autocast")])
def test_an_attack_in_a_ball_searches_in_the_shorter_precision_throughout(model, how, asked):
    eps = {"linf": [0.05, 0.1]}
    _, full = run(model, "pgd-linf", "full", eps=eps)
    _, short = run(model, "pgd-linf", "bfloat16", eps=eps)
    assert asked[how] >= short["forwards"].sum() > 0
    assert (short["status"] != full["status"]).mean() <= 0.03
    np.testing.assert_array_equal(short["forwards"], full["forwards"])  # and its passes are counted alike
    np.testing.assert_array_equal(short["backwards"], full["backwards"])
    np.testing.assert_array_equal(short["clean_margin"], full["clean_margin"])  # judged in full


def test_a_minimal_norm_attack_of_a_library_sees_the_model_itself(asked):
    first, second = (run(RESNET, "ddn-l2", precision)[1] for precision in ("full", "bfloat16"))
    assert asked == {"autocast": 0, "rounded": 0}
    np.testing.assert_array_equal(first["distance"], second["distance"])


def test_workers_search_alike():
    options = {"shard": 30}
    _, local = run(SNODE, "sensitivity-l2", "bfloat16", **options)
    _, sent = run(SNODE, "sensitivity-l2", "bfloat16", engine="processes", workers=1, **options)
    _, full = run(SNODE, "sensitivity-l2", "full", **options)
    pd.testing.assert_frame_equal(local, sent)
    assert not (local["forwards"] == full["forwards"]).all()


def test_the_precision_is_part_of_the_protocol_and_said(tmp_path):
    first, _ = run(SNODE, "fgsm-linf", "full")
    second, _ = run(SNODE, "fgsm-linf", "bfloat16", out=tmp_path / "run")
    assert first.meta["protocol_hash"] != second.meta["protocol_hash"]
    words = "Attacks searched in bfloat16; every point was judged in float32."
    assert words in (tmp_path / "run" / "report.html").read_text()
    assert words in " ".join((tmp_path / "run" / "tables" / "robust_accuracy_linf.md").read_text().split())


def test_parts_made_on_a_gpu_are_put_together_without_one(tmp_path, monkeypatch):
    protocol = build_protocol(
        {"models": [SNODE], "attacks": "fgsm-linf", "limit": 20, "search_precision": "tf32", "audit": "none"}
    )
    with pytest.raises(OptionError, match="tf32"):
        run_part(protocol, tmp_path / "run", (0, 1))
    with monkeypatch.context() as patch:
        patch.setattr("robustode.api.check_search", lambda plan: plan)
        run_part(protocol, tmp_path / "run", (0, 1))
    run = merge_parts([tmp_path / "run"], tmp_path / "run")
    assert len(run.records) > 0
    assert run.meta["protocol"]["search_precision"] == "tf32"
    with pytest.raises(OptionError, match="tf32"):
        run_protocol(protocol, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_a_counted_model_answers_with():
    model = random_snode(dtype=torch.float32, steps=12)
    counted = Counted(model, searched(model, precision="bfloat16"))
    x = random_points(model.input_shape, 6, dtype=torch.float32)
    with torch.no_grad():
        own, short = model(x), model.searched(products=torch.bfloat16)(x)
        coarse = model.searched(products=torch.bfloat16).at_steps(4)(x)
        assert not torch.equal(own, short)
        assert counted.reduced() is None
        assert torch.equal(counted(x), own)
        with counted.searching(whole=True):
            assert torch.equal(counted(x), short)
        with counted.searching(whole=False):
            assert torch.equal(counted(x), own)
            assert torch.equal(counted.linearise(x).logits, own)
            counted.reset()
            level = counted.reduced()
            assert torch.equal(level(x), short)
            assert torch.equal(counted.at_steps(4)(x), coarse)
            assert counted.forwards == 6 + 6 * 4 / 12
        assert torch.equal(counted(x), own)
        assert counted.reduced() is None


def test_a_search_that_fails_leaves_the_model_as_it_was():
    model = random_affine(dtype=torch.float32)
    counted = Counted(model, searched(model, precision="bfloat16"))
    x = random_points(model.input_shape, 6, dtype=torch.float32)
    with pytest.raises(ZeroDivisionError), counted.searching(whole=True):
        1 / 0  # noqa: B018
    assert torch.equal(counted(x), model(x))


def test_tf32_is_set_for_the_search_and_not_for_passes_in_full():
    seen = []

    class Asks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            inner = random_affine(dtype=torch.float32)
            self.inner, self.bounds, self.classes, self.input_shape = inner, inner.bounds, 4, inner.input_shape

        def forward(self, x):
            seen.append(torch.get_float32_matmul_precision())
            return self.inner(x)

    model = Asks()
    counted = Counted(model, searched(model, precision="tf32"))
    x = random_points(model.input_shape, 2, dtype=torch.float32)
    before = torch.get_float32_matmul_precision()
    counted(x)
    with counted.searching(whole=False):
        counted(x)
        counted.linearise(x)
        counted.reduced()(x)
    with counted.searching(whole=True):
        counted(x)
    assert seen == [before, "highest", "highest", "high", "high"]
    assert torch.get_float32_matmul_precision() == before


def test_an_adaptive_snode_has_no_shorter_precision():
    model = load_model(SNODE).with_solver(method="dopri5")
    assert searched(model, precision="bfloat16").reduced is None
    assert searched(model, precision="bfloat16", graphs=True).full is model


def test_autocast_gives_logits_and_gradients_in_the_dtype_of_the_input():
    model = load_model(RESNET).requires_grad_(False)
    x = random_points(model.input_shape, 8, dtype=torch.float32).requires_grad_(True)
    short = Autocast(model)
    own, right = short(x), model(x)
    assert own.dtype == torch.float32
    assert 0 < (own - right).abs().max() < 0.05 * right.abs().max()
    first, second = (torch.autograd.grad(out.logsumexp(1).sum(), x)[0].flatten(1) for out in (own, right))
    assert torch.nn.functional.cosine_similarity(first, second).median() > 0.99


def test_what_cannot_be():
    with pytest.raises(ProtocolError, match="expected one of bfloat16, full, tf32, got 'half'"):
        run(SNODE, "fgsm-linf", "half")
    double = load_model(SNODE, dtype="float64")
    with pytest.raises(OptionError, match="expected full, as it computes in float64, got bfloat16"):
        run(double, "fgsm-linf", "bfloat16", data="digits")
    with pytest.raises(OptionError, match=r"search precision tf32: expected device 'cuda', got device 'cpu'\. Add"):
        run(SNODE, "fgsm-linf", "tf32")
    words = refused(f"eval --model {SNODE} --limit 20 --cuda-graphs --out x")
    assert "CUDA graphs: expected device 'cuda', got device 'cpu'. Add --device cuda, or leave them out." in words
    words = refused(f"eval --model {SNODE} --limit 20 --search-precision bf16 --out x")
    assert "search_precision: expected one of bfloat16, full, tf32, got 'bf16'" in words
