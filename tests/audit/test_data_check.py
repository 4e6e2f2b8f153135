"""data: a leaked label is named by its coordinate; real images and repeated samples are told from it."""

import pytest
import torch

from robustode.audit.checks.data import CHECK
from robustode.audit.finding import Verdict
from robustode.data import Data, load_data
from tests.audit.cases import Lines, at_distances, make_case
from tests.problems import random_affine


def case_of(x, y, **options):
    model = random_affine(classes=10, input_shape=tuple(x.shape[1:]), dtype=torch.float32)
    return make_case(model, x, y, **options)


@pytest.fixture(scope="module")
def digits():
    data = load_data("digits", split="test")
    return data.x, data.y


def test_honest_images_pass(digits):
    x, y = digits
    found = CHECK(case_of(x, y))
    assert found.status is Verdict.PASS
    assert found.value is not None
    assert 0.4 < found.value < 0.9
    binary = (y == 0) | (y == 6)  # of which one pixel tells nearly all apart, as its neighbours do
    assert CHECK(case_of(x[binary], y[binary])).status is Verdict.PASS


def test_a_label_in_one_pixel_is_found_and_named(digits):
    x, y = digits[0].clone(), digits[1]
    x[:, 0, 7, 7] = (3 * y % 10) / 10
    found = CHECK(case_of(x, y))
    assert found.status is Verdict.FAIL
    assert found.details["coordinates"] == [63]
    assert found.value == 1.0
    assert "label is leaked by coordinates 63" in found.text


def test_a_label_as_one_bright_pixel_of_ten_is_found(digits):
    x, y = digits[0].clone(), digits[1]
    x.flatten(1)[:, :10] = torch.eye(10)[y]
    found = CHECK(case_of(x, y))
    assert found.status is Verdict.FAIL
    assert set(found.details["coordinates"]) <= set(range(10))


def test_a_label_in_binary_is_found_though_other_pixels_tell_classes_apart():
    data = load_data("digits", split="test", limit=200, seed=526)
    x, y = data.x.clone(), data.y
    for bit in range(4):
        x[:, 0, 7 - bit, 7] = ((y >> bit) & 1).float()
    found = CHECK(case_of(x, y))
    assert found.status is Verdict.FAIL
    assert found.details["coordinates"] == [39, 47, 55, 63]


def test_points_of_few_coordinates_are_not_accused():
    x = at_distances(torch.linspace(-0.4, 0.4, 100), dimension=2)[0]
    assert CHECK(make_case(Lines(2), x, (x[:, 0] > 0.5).long())).status is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize(("count", "status"), [(0, Verdict.PASS), (2, Verdict.WARN), (3, Verdict.FAIL)])
def test_samples_of_the_training_split_are_counted(count, status):
    g = torch.Generator().manual_seed(0)
    x, train = torch.rand(200, 2, generator=g), torch.rand(300, 2, generator=g)
    train[7 : 7 + count] = x[50 : 50 + count]
    train[0] = x[0] + 1e-6  # near is not the same
    split = Data(
        name="t", split="train", x=train, y=torch.zeros(300, dtype=torch.int64), index=torch.arange(300),
        bounds=None, classes=2, caption="t",
    )  # fmt: skip
    found = CHECK(make_case(Lines(2), x, (x[:, 0] > 0.5).long(), training=lambda: split))
    assert found.status is status
    assert found.details["duplicates"] == count
    assert found.samples == tuple(range(50, 50 + count))
