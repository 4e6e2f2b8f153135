"""`robustode sensitivity`: figures and rows written, to the byte again, and nothing written if something is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import robustode as ro
from tests.cli.command import refused, works

LINE = "sensitivity --model s.safetensors"


def test_figure_rows_and_document(folder):
    line = f"{LINE} --sample 7 --sample 3 --csv c.csv"
    text = works(f"{line} --out a.svg").out
    assert "Sensitivity of s" in text
    assert "Shown: samples 7, 3 of all 360 test images of digits 8x8." in " ".join(text.split())
    assert text.endswith("wrote a.svg\nwrote c.csv\n")
    document = works(f"{line} --out b.svg --force --json").json
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()
    assert (document["out"], document["csv"], document["no_depth"]) == ("b.svg", "c.csv", None)
    assert [row["sample"] for row in document["samples"]] == [7, 3]

    model, data = ro.load_model("s.safetensors"), ro.load_data("digits", split="test")
    found = ro.sensitivity.maps(model, data.x[[7, 3]], data.y[[7, 3]])
    for name, values in (("label", data.y[[7, 3]]), ("other", found.other), ("distance", found.distance)):
        np.testing.assert_allclose([row[name] for row in document["samples"]], values, rtol=1e-5)
    rows = pd.read_csv("c.csv")
    assert len(rows) == 2 * (model.steps + 1)
    np.testing.assert_allclose(rows["tangent"], found.along.tangent.flatten(), rtol=1e-5)
    np.testing.assert_allclose(rows["pairing"], -found.saliency.flatten(1).norm(dim=1).repeat_interleave(11), rtol=1e-4)


def test_samples_norm_direction_and_target(folder):
    few = works(f"{LINE} --out a.png --json").json
    same = works(f"{LINE} --out b.pdf --limit 4 --json").json
    assert few["samples"] == same["samples"]
    assert len(few["samples"]) == 4
    one = works(f"{LINE} --sample 3 --norm linf --out c.svg --json").json["samples"][0]
    other = works(f"{LINE} --sample 3 --norm linf --direction singular --out d.svg --json").json["samples"][0]
    assert one["distance"] == other["distance"]
    assert one["growth"] != other["growth"]
    target = (one["other"] + 1) % 10 if (one["other"] + 1) % 10 != one["label"] else (one["other"] + 2) % 10
    aimed = works(f"{LINE} --sample 3 --norm linf --target {target} --out e.svg --json").json["samples"][0]
    assert aimed["other"] == target
    assert aimed["distance"] > one["distance"]


def test_a_model_without_depth_says_so(folder):
    text = works("sensitivity --model zoo:resnet-digits --limit 2 --out r.svg --csv r.csv").out
    assert "No curves along depth: ResNet is no sNODE." in text
    assert "‖ξ(T)‖" not in text
    assert pd.read_csv("r.csv")["tangent"].isna().tolist() == [True, True]


@pytest.mark.parametrize(
    ("options", "phrases"),
    [
        ("--sample 360 --out a.svg", ["sample of data 'digits'", "0 to 359, got 360"]),
        ("--sample -1 --out a.svg", ["0 to 359, got -1"]),
        ("--sample 1 --limit 4 --out a.svg", ["expected --sample or --limit, got both"]),
        ("--limit 13 --out a.svg", ["samples of a figure: expected at most 12, got 13", "--limit 12"]),
        ("--out a.jpg", ["a name ending in .svg, .png, .pdf, got '.jpg'", "Write a.svg"]),
        ("--out a", ["a name ending in .svg, .png, .pdf, got no suffix"]),
        ("--out .", ["expected a new one, got a folder"]),
        ("--out code_of_user.py", ["expected a new one, got it exists", "--force"]),
        ("--out a.svg --csv code_of_user.py", ["output file 'code_of_user.py'", "got it exists"]),
        ("--out a.svg --csv ./a.svg", ["--csv: expected another file than --out"]),
        ("--out s.safetensors/a.svg", ["a folder that can be written"]),
        ("--out a.svg --norm l3", ["unknown norm"]),
        ("--out a.svg --direction singlar", ["unknown direction", "Did you mean 'singular'?"]),
        ("--out a.svg --target 10", ["--target: expected a class from 0 to 9, got 10"]),
        ("--sample 3 --out a.svg --target 8", ["--target: expected a class other than the labels", "sample 3"]),
        ("--data digit --out a.svg", ["unknown data set", "Did you mean 'digits'?"]),
    ],
)
def test_bad_input(folder, options, phrases):
    message = refused(f"{LINE} {options}")
    for phrase in phrases:
        assert phrase in message


def test_a_model_that_records_no_data_needs_them(folder):
    message = refused("sensitivity --model python:code_of_user.py:make --out a.svg")
    assert "no data given: expected --data" in message
