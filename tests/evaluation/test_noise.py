"""Accuracy under noise in a run: exact for an affine classifier of two classes, drawn beside it, kept and resumed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from robustode.errors import OptionError, ProtocolError, RunError
from robustode.evaluation import noise_rows as noise_file
from robustode.evaluation.calibration import expected_calibration_error
from robustode.evaluation.jobs import Ready
from robustode.evaluation.noise import NoiseEntry
from robustode.evaluation.noise_rows import DTYPES, noise_rows
from robustode.evaluation.prepare import prepare_model
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.records import rows
from robustode.reporting.charts.noise import noise_charts
from robustode.reporting.join import join
from robustode.reporting.noise import noise_tables
from robustode.uncertainty import IIDWeights, RoundedWeights
from tests.attacks.adapter_problems import boxed_affine, exact_distance
from tests.evaluation.problem import as_data, plan_of, refused
from tests.evaluation.runs import contents, run

META = {"data": {"caption": "c", "n": 40}, "status": "complete"}
SIGMAS = (0.05, 0.3)
CHOSEN = np.linspace(0, 39, 30).round().astype(int)  # the drawn samples, spread over all


def plan(**values):
    model, x, y = boxed_affine((0.0, 1.0), samples=40, dtype=torch.float32)
    y[:3] = 1 - y[:3]
    noise = {"sigma": list(SIGMAS), "draws": 2000, "drawn": 30, **values}
    return plan_of(
        model, as_data(x, y, index=torch.arange(40) + 7, classes=2), attacks="none", audit="none", uncertainty=noise
    )


def exact(found):
    """P(correct) = Φ(±r / σ), r the distance to the boundary: the noise is not clipped to the box."""
    model, x, y = found.models[0].module.module, found.data.x, found.data.y
    r = exact_distance(model, x, model(x).argmax(1), "l2") * torch.where(model(x).argmax(1) == y, 1, -1)
    return {sigma: (0.5 * (1 + torch.erf(r / sigma / math.sqrt(2)))).numpy() for sigma in SIGMAS}


def ready(found) -> Ready:
    return prepare_model(found, found.models[0], lambda event: None)


def test_prediction_and_draws_agree_with_the_closed_form():
    made = plan(methods=["auto", "linear", "unscented"])
    table, seconds = noise_rows(ready(made), made.protocol.uncertainty, seed=0)
    assert dict(table.dtypes.astype(str)) == DTYPES
    assert len(table) == 2 * (3 * 40 + 30)
    assert (seconds["seconds"] > 0).all()
    for sigma, p in exact(made).items():
        level = rows(table, sigma=sigma)
        for method in ("auto", "linear", "unscented"):
            one = rows(level, method=method)
            assert one["sample"].tolist() == made.data.index.tolist()
            np.testing.assert_allclose(one["p_correct"], p, atol=1e-4)
            assert (one["linear_valid"].notna() == (method == "auto")).all()
        assert rows(level, method="auto")["linear_valid"].all()  # an affine map is its own linearisation
        drawn = rows(level, method="monte-carlo")
        assert set(drawn["draws"]) == {2000}
        q = p[CHOSEN]
        assert drawn["sample"].tolist() == (CHOSEN + 7).tolist()
        assert (np.abs(drawn["p_correct"].to_numpy() - q) < 5 * np.sqrt(q * (1 - q) / 2000) + 1e-3).all()
        margin = rows(level, method="linear")
        np.testing.assert_allclose(margin["effective_margin"], margin["margin"] / margin["std"], rtol=1e-9)


def test_draws_follow_the_seed():
    made = plan(sigma=[0.1], drawn=40)
    first, _ = noise_rows(ready(made), made.protocol.uncertainty, seed=3)
    torch.manual_seed(9)
    again, _ = noise_rows(ready(made), made.protocol.uncertainty, seed=3)
    assert again.equals(first)
    other, _ = noise_rows(ready(made), made.protocol.uncertainty, seed=4)
    assert not rows(other, method="monte-carlo").equals(rows(first, method="monte-carlo"))


def test_a_run_keeps_them_resumes_them_and_is_the_same_to_the_bit(tmp_path, monkeypatch):
    made = plan()
    whole = run(made, tmp_path / "whole")
    assert whole.noise is not None
    assert len(whole.noise) == 2 * (40 + 30)
    calls = []

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("robustode.evaluation.runner.finish", stop)
    with pytest.raises(KeyboardInterrupt):
        run(made, tmp_path / "cut")
    monkeypatch.undo()
    monkeypatch.setattr(noise_file, "noise_rows", lambda *a, **k: calls.append(1))
    run(made, tmp_path / "cut", resume=True)
    assert calls == []  # what is on disk is not computed again
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    other = plan(draws=10)
    refused(RunError, "uncertainty.draws: 2000 then, 10 now", lambda: run(other, tmp_path / "cut", resume=True))


def test_a_method_that_the_model_does_not_allow_is_known_before_anything_is_written():
    with pytest.raises(OptionError, match="gaussian"):
        plan(methods=["gaussian"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": [-0.1]}, "expected finite numbers ≥ 0, got '-0.1'"),
        ({"sigma": "0.1,x"}, "expected finite numbers ≥ 0, got 'x'"),
        ({"sigma": [0.1, 0.1]}, "expected different standard deviations, got 0.1, 0.1"),
        ({"weights": "int7"}, "expected none, int8 or a standard deviation, got 'int7'"),
        ({"methods": ["linaer"]}, "Did you mean 'linear'?"),
        ({"methods": "linear,linear"}, "expected different methods, got linear, linear"),
        ({"methods": []}, "expected at least one value, got none"),
        ({"sigma": True}, "expected finite numbers ≥ 0, got 'True'"),
        ({"draws": 1}, "uncertainty.draws: expected a number ≥ 2"),
        ({"drwas": 5}, "Did you mean 'draws'?"),
    ],
)
def test_mistakes_in_a_protocol(change, message):
    values = {"models": ["a"], "uncertainty": {"sigma": [0.1], **change}}
    refused(ProtocolError, message, lambda: build_protocol(values))


def test_noise_of_the_weights():
    def kind(weights):
        return NoiseEntry(sigma=(0.1,), weights=weights).weight_cov()

    assert kind("none") is None
    assert isinstance(kind("int8"), RoundedWeights)
    assert kind(0.01) == IIDWeights(sigma=0.01)
    made = plan(weights="0.1", drawn=0)
    noisy, _ = noise_rows(ready(made), made.protocol.uncertainty, seed=0)
    alone, _ = noise_rows(ready(plan(drawn=0)), plan(drawn=0).protocol.uncertainty, seed=0)
    assert (noisy["std"] > alone["std"]).all()
    assert set(noisy["weights"]) == {"0.1"}


def test_drawn_weights_are_shared_so_their_errors_go_together(tmp_path):
    """The standard error of the mean that is shown covers what other draws of the weights give."""
    means, stated = [], []
    for seed in range(12):
        made = plan(sigma=[0.02], weights="0.6", draws=25, drawn=40)
        table, _ = noise_rows(ready(made), made.protocol.uncertainty, seed=seed)
        (accuracy, _) = noise_tables(table, {"models": [{"label": "Affine"}], **META}, None)
        means.append(accuracy.frame["measured"][0])
        stated.append(accuracy.frame["standard_error"][0])
    assert np.std(means, ddof=1) < 1.3 * np.mean(stated)
    assert "its upper bound" in accuracy.caption


def test_weights_are_the_same_however_they_are_written():
    kinds = {NoiseEntry(sigma=(0.1,), weights=text).weights for text in ("0.1", "0.10", "1e-1", 0.1)}
    assert kinds == {"0.1"}


def test_a_random_model_is_the_same_again(monkeypatch):
    made = plan(sigma=[0.1], draws=5)
    module, known = made.models[0].module.module, ready(made)
    original = type(module).forward
    monkeypatch.setattr(type(module), "forward", lambda self, x: original(self, x) + torch.randn(len(x), 1))
    found = [noise_rows(known, made.protocol.uncertainty, seed=0)[0] for _ in range(2)]
    assert found[0].equals(found[1])


def test_the_drawn_samples_are_different_ones():
    for total, count in ((10_000, 9_999), (60_000, 59_999), (7, 9), (5, 0)):
        assert len(set(noise_file.spread(total, count).tolist())) == min(total, count)


def test_calibration_error_in_closed_form():
    predicted = np.array([0.05, 0.05, 0.95, 1.0])
    measured = np.array([0.1, 0.2, 0.9, 0.8])
    assert expected_calibration_error(predicted, measured) == pytest.approx(0.5 * 0.1 + 0.5 * 0.125)
    assert expected_calibration_error(predicted, predicted) == 0


def test_tables_and_charts_say_what_the_rows_say(tmp_path):
    made = plan(methods=["linear"])
    found = run(made, tmp_path / "run")
    accuracy, risk = noise_tables(found.noise, found.meta, found.timings)
    for row in accuracy.frame.to_dict("records"):
        p = exact(made)[row["sigma"]]
        assert row["predicted"] == pytest.approx(p.mean(), abs=1e-4)
        assert row["predicted_drawn"] == pytest.approx(p[CHOSEN].mean(), abs=1e-4)
        assert abs(row["measured"] - p[CHOSEN].mean()) < 5 * row["standard_error"]
        assert row["dp_mean"] < 0.02
        assert row["time_ratio"] > 0
    order = np.argsort(exact(made)[0.3], kind="stable")[:10] + 7
    assert risk.frame["sample"].tolist() == order.tolist()
    assert "σ = 0.3" in risk.caption
    reliability, at_risk = noise_charts(found.noise, found.meta)
    assert list(reliability.choices["sigma"]) == ["σ = 0.3", "σ = 0.05"]
    assert at_risk.spec["data"]["values"].count("\n") == 41
    assert noise_tables(None, found.meta, None) == noise_charts(None, found.meta) == []
    assert json.loads((tmp_path / "run" / "run.json").read_text())["files"].keys() >= {"uncertainty.parquet"}


def test_a_model_that_answers_otherwise_in_a_batch_is_refused(monkeypatch):
    model, _, _ = boxed_affine((0.0, 1.0), samples=4, dtype=torch.float32)
    original = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, x: original(self, x) + x.mean() * torch.tensor([1.0, -1.0])
    )
    with pytest.raises(OptionError, match="expected a model whose answers do not depend on the batch"):
        plan()


def test_runs_with_other_noise_are_not_compared(tmp_path):
    runs = [run(plan(sigma=[sigma], drawn=0), tmp_path / str(sigma)) for sigma in (0.1, 0.2)]
    refused(RunError, "are not comparable: uncertainty", lambda: join(runs))
    both = join([runs[0], runs[0]])
    assert set(both.noise["model"]) == {"Affine", "Affine#2"}
