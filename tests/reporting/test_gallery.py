"""The gallery shows the stored images themselves, from the nearest sample to the farthest."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from robustode.evaluation.rundir import RunDir
from robustode.evaluation.shards import save_tensors
from robustode.reporting.gallery import COUNT, gallery
from tests import runs


def decoded(uri):
    kind, _, text = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def stored(path, *, n=9, shape=(1, 3, 3), distances=None):
    """A run whose sample i moves pixel 0 from i/20 up by half and the last pixel down to 0."""
    x = torch.zeros(n, *shape)
    x[:, :, 0, 0], x[:, :, -1, -1] = torch.arange(n)[:, None] / 20, 0.4
    x_adv = x.clone()
    x_adv[:, :, 0, 0] += 0.5
    x_adv[:, :, -1, -1] -= 0.25
    distance = torch.arange(n, dtype=torch.float64) if distances is None else distances
    values = {"sample": torch.arange(n) + 100, "label": torch.full((n,), 3), "pred": torch.full((n,), 5)}
    save_tensors({**values, "x": x, "x_adv": x_adv, "distance": distance}, path / "adversarials" / "a-l2.safetensors")
    meta = runs.run_meta([runs.model_meta("a", n=n, correct=n, input_shape=list(shape))])
    return RunDir(path=path, meta=meta, records=runs.frame(runs.row()))


def test_pictures_are_the_stored_images(tmp_path):
    run = stored(tmp_path)
    (strip,) = gallery([run], run.meta["models"])
    assert (strip.model, strip.norm, len(strip.pictures)) == ("a", "L2", COUNT)
    first, last = strip.pictures[0], strip.pictures[-1]
    assert first.text == "sample 101: 3 → 5, L2 1.00"  # sample 100 was misclassified: its distance is 0
    assert last.text == "sample 108: 3 → 5, L2 8.00"
    assert decoded(last.clean)[0, 0] == round(255 * 8 / 20)
    assert decoded(last.adversarial)[0, 0] == round(255 * (8 / 20 + 0.5))
    change = decoded(last.difference)
    assert change[0, 0].tolist() == [213, 94, 0]  # the largest rise
    assert change[1, 1].tolist() == [255, 255, 255]
    assert change[2, 2].tolist() == [127, 184, 216]  # half of it, downwards


def test_colour_images_keep_their_colours(tmp_path):
    run = stored(tmp_path, shape=(3, 4, 5))
    (strip,) = gallery([run], run.meta["models"])
    assert decoded(strip.pictures[0].clean).shape == (4, 5, 3)
    assert decoded(strip.pictures[0].difference)[0, 0].tolist() == [255, 255, 255]
    assert decoded(strip.pictures[0].difference)[1, 1].tolist() == [128, 128, 128]


@pytest.mark.parametrize("shape", [(2,), (7, 3, 3), (1, 1, 9)])
def test_other_inputs_have_no_pictures(tmp_path, shape):
    meta = runs.run_meta([runs.model_meta("a", n=4, correct=4, input_shape=list(shape))])
    run = RunDir(path=tmp_path, meta=meta, records=runs.frame(runs.row()))
    assert gallery([run], meta["models"]) == []


def test_nothing_stored_or_nothing_broken_shows_nothing(tmp_path):
    run = stored(tmp_path, distances=torch.zeros(9, dtype=torch.float64))
    assert gallery([run], run.meta["models"]) == []
    (tmp_path / "adversarials" / "a-l2.safetensors").unlink()
    assert gallery([run], run.meta["models"]) == []
