"""The figure of sensitivity maps and its rows: what is drawn, reproducible files, and clear errors."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from robustode.errors import OptionError
from robustode.reporting.maps import sensitivity_plot
from robustode.reporting.maps_rows import depth_rows, sample_rows
from robustode.reporting.plot import write_plot
from robustode.sensitivity import maps
from tests.problems import random_affine, random_conv_snode, random_points, random_snode


def found_of(model, n=2, seed=1, **options):
    x = random_points(model.input_shape, n, seed=seed)
    return maps(model, x, **options), x


def panels(plot):
    """The axes of each row: input, saliency, curves, without colour bars."""
    axes = [one for one in plot.figure.axes if one.get_position(original=True).width > 0.05]
    rows: dict[float, list] = {}
    for one in axes:
        rows.setdefault(round(one.get_position(original=True).y0, 6), []).append(one)
    return [sorted(row, key=lambda one: one.get_position().x0) for _, row in sorted(rows.items(), reverse=True)]


def test_what_is_drawn_of_an_image():
    found, x = found_of(random_snode(scale=2.0))
    plot = sensitivity_plot(found, x, samples=[7, 11], direction="margin")
    rows = panels(plot)
    assert [len(row) for row in rows] == [3, 3]
    for i, (picture, saliency, curves) in enumerate(rows):
        np.testing.assert_allclose(picture.images[0].get_array(), x[i, 0])
        shown = saliency.images[0]
        np.testing.assert_allclose(shown.get_array(), found.saliency[i, 0])
        low, high = shown.get_clim()
        assert high == -low == pytest.approx(float(found.saliency[i].abs().max()))
        assert [round(v, 6) for v in shown.cmap(0.5)] == pytest.approx([1, 1, 1, 1], abs=0.01)  # zero is white
        for line, sizes in zip(curves.lines[:2], (found.along.tangent[i], found.along.adjoint[i]), strict=True):
            start = sizes[0] if line is curves.lines[0] else sizes[-1]
            np.testing.assert_allclose(line.get_data(), [found.along.depth, sizes / start])
        assert curves.get_ylabel() == "relative size"
    assert rows[0][2].get_ylim() == rows[1][2].get_ylim()
    assert rows[1][2].get_xlabel() == "depth t"
    assert [text.get_text()[:10] for text in plot.figure.legends[0].get_texts()] == ["‖ξ(t)‖ / ‖", "‖λ(t)‖ / ‖"]
    words = plot.figure.texts[1].get_text()
    own, other = int(found.own[1]), int(found.other[1])
    assert words.startswith(f"sample 11: label {own}, against class {other}, margin {float(found.margin[1]):.3g}")
    assert words.endswith(f"linear L2 distance {float(found.distance[1]):.3g}")
    assert "Direction: margin, L2." in plot.caption


def test_a_wrong_answer_is_said():
    model = random_affine()
    x = random_points(model.input_shape, 1)
    guess = int(model(x).argmax())
    found = maps(model, x, torch.tensor([(guess + 1) % 4]))
    plot = sensitivity_plot(found, x, samples=[0])
    words = plot.figure.texts[0].get_text()
    assert f"label {(guess + 1) % 4}, predicted {guess}, against class" in words
    assert "margin −" in words
    assert "depth" not in plot.caption


@pytest.mark.parametrize("shape", [(3, 4, 6), (2, 4, 6), (4, 6)])
def test_channels_are_summed_and_colours_shown(shape):
    found, x = found_of(random_affine(input_shape=shape, classes=3))
    picture, saliency = panels(sensitivity_plot(found, x, samples=[0, 1]))[0]
    total = found.saliency[0] if len(shape) == 2 else found.saliency[0].sum(0)
    np.testing.assert_allclose(saliency.images[0].get_array(), total)
    drawn = picture.images[0].get_array()
    assert drawn.shape == ((4, 6, 3) if shape[0] == 3 else (4, 6))
    if shape[0] == 3:
        np.testing.assert_allclose(drawn, x[0].permute(1, 2, 0))


def test_vectors_are_bars_or_lines():
    found, x = found_of(random_snode(input_shape=(5,), classes=3))
    left, middle, _ = panels(sensitivity_plot(found, x, samples=[0, 1]))[0]
    np.testing.assert_allclose([bar.get_height() for bar in left.patches], x[0])
    np.testing.assert_allclose([bar.get_height() for bar in middle.patches], found.saliency[0])
    found, x = found_of(random_affine(input_shape=(60,)))
    left, middle = panels(sensitivity_plot(found, x, samples=[0, 1]))[0]
    assert not left.patches
    np.testing.assert_allclose(middle.lines[1].get_ydata(), found.saliency[0])


def test_curves_that_spread_far_are_logarithmic_and_no_sizes_leave_no_curve():
    found, x = found_of(random_conv_snode(scale=8.0, activation="identity"))
    (_, _, curves), _ = panels(sensitivity_plot(found, x, samples=[0, 1]))
    assert curves.get_yscale() == "log"
    still = replace(found.along, tangent=0 * found.along.tangent, adjoint=0 * found.along.adjoint)
    sensitivity_plot(replace(found, along=still, saliency=0 * found.saliency), x, samples=[0, 1]).svg()


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_files_are_reproducible(tmp_path, suffix):
    paths = []
    for name in ("one", "two"):
        found, x = found_of(random_snode())
        paths.append(write_plot(sensitivity_plot(found, x, samples=[0, 1]), tmp_path / f"{name}{suffix}"))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    found, x = found_of(random_snode(), seed=2)
    other = write_plot(sensitivity_plot(found, x, samples=[0, 1]), tmp_path / f"other{suffix}")
    assert other.read_bytes() != paths[0].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{n}{suffix}" for n in ("one", "two", "other"))
    if suffix == ".svg":
        ElementTree.fromstring(paths[0].read_text())
        assert "<dc:date>" not in paths[0].read_text()


def test_rows():
    found, _ = found_of(random_snode(scale=2.0), n=3)
    rows = sample_rows(found, [4, 5, 9])
    along = found.along
    assert rows["sample"].tolist() == [4, 5, 9]
    np.testing.assert_allclose(rows["growth"], along.tangent[:, -1] / along.tangent[:, 0])
    for i, row in rows.iterrows():
        n = int((row["steepest"] - along.depth[1] / 2) / along.depth[1] + 0.5)
        rises = (along.tangent[i, 1:] / along.tangent[i, :-1]).tolist()
        assert rises[n] == max(rises)
        assert along.adjoint[i, along.depth == row["critical"]] == along.adjoint[i].max()
    longer = depth_rows(found, [4, 5, 9])
    assert len(longer) == 3 * len(along.depth)
    part = longer[longer["sample"] == 5]
    np.testing.assert_allclose(part["depth"], along.depth)
    for name in ("state", "tangent", "adjoint", "pairing"):
        np.testing.assert_allclose(part[name], getattr(along, name)[1])
    flat = depth_rows(found_of(random_affine())[0], [0, 1])
    assert len(flat) == 2
    assert flat["depth"].isna().all()
    assert list(flat.columns) == list(longer.columns)
    still = replace(found, along=replace(along, tangent=0 * along.tangent))
    assert pd.isna(sample_rows(still, [0, 1, 2])["steepest"]).all()
    assert all(math.isnan(value) for value in sample_rows(still, [0, 1, 2])["growth"])


def test_errors(tmp_path):
    found, x = found_of(random_affine(), n=13)
    with pytest.raises(OptionError, match="samples of a figure: expected at most 12, got 13"):
        sensitivity_plot(found, x, samples=list(range(13)))
    found, x = found_of(random_affine())
    with pytest.raises(OptionError, match="expected 2 of each, got 2 inputs, 1 numbers"):
        sensitivity_plot(found, x, samples=[0])
    plot = sensitivity_plot(found, x, samples=[0, 1])
    for name, got in (("a.jpg", "'.jpg'"), ("a", "no suffix")):
        with pytest.raises(OptionError, match=rf"ending in .svg, .png, .pdf, got {got}. Write a.svg"):
            write_plot(plot, tmp_path / name)
    assert not list(tmp_path.iterdir())
