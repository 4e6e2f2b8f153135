"""Units in groups and parts: all of them, each once, what waits for each other together."""

from __future__ import annotations

import pytest

from robustode.errors import OptionError
from robustode.evaluation.engines.options import Engine, parse_part, parse_size
from robustode.evaluation.engines.tasks import groups_of, missing
from tests.evaluation.problem import affine, forms, plan_of
from tests.evaluation.runs import BUDGETS, CARD, run


@pytest.fixture
def cascade(tmp_path):
    """Two attacks of L2 and one of L∞ in a cascade, on two models in three shards."""
    folder = forms(tmp_path / "cascade")
    for name, norm in (("push", "l2"), ("within", "l2"), ("noise", "linf")):
        (folder / f"{name}.toml").write_text(CARD.format(name=name, norm=norm, kind="budget"))
    (folder / "s.toml").write_text('attacks = ["push", "noise", "within"]\ncascade = true\n')
    model, data = affine()
    return plan_of([model, affine(seed=9)[0]], data, attacks=str(folder / "s.toml"), budgets=BUDGETS, shard=12)


def test_groups_are_the_units_in_order(plan):
    groups = groups_of(plan)
    assert all(len(group) == 1 for group in groups)
    tasks = [group[0] for group in groups]
    assert [task.number for task in tasks] == list(range(12))
    names = [card.name for card in plan.attacks.cards]
    assert [(task.name, task.shard) for task in tasks] == [(name, shard) for name in names for shard in (0, 1)]
    assert tasks[3].words == "Affine · within · shard 1"


def test_a_cascade_on_one_shard_is_a_group(cascade):
    groups = groups_of(cascade)
    assert sorted(task.number for group in groups for task in group) == list(range(2 * 3 * 3))
    assert [[task.name for task in group] for group in groups[:6]] == [["push", "within"]] * 3 + [["noise"]] * 3
    for group in groups:
        assert len({(task.model, task.shard) for task in group}) == 1
        assert [task.number for task in group] == sorted(task.number for task in group)


@pytest.mark.parametrize("n", [1, 2, 5, 12, 40])
def test_parts_have_every_unit_once_and_keep_groups_whole(cascade, n):
    every = groups_of(cascade)
    parts = [groups_of(cascade, (i, n)) for i in range(n)]
    assert sorted((group for part in parts for group in part), key=every.index) == every
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_missing_are_those_without_records(plan, tmp_path):
    run(plan, tmp_path / "a")
    groups = groups_of(plan)
    assert missing(groups, tmp_path / "a") == []
    place = groups[4][0].place(tmp_path / "a")
    place.with_name(place.name + ".parquet").unlink()
    assert missing(groups, tmp_path / "a") == [groups[4]]


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("1.5 gib", 3 * 2**29), ("512MiB", 2**29), ("300k", 300_000), ("7", 7), (".5T", 5 * 10**11)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "two GB", "-1GB", "0", "0.0GB", "2XB", "2 G B", "1e9", "2GB/s"])
def test_sizes_refused(text):
    with pytest.raises(OptionError) as caught:
        parse_size(text)
    assert str(caught.value) == f"--memory: expected a size such as 2GB, 512MB or 1.5GiB, got '{text}'"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "proceses"}, "unknown engine: expected one of local, processes, ray, got 'proceses'. Did you mean"),
        ({"name": "processes", "workers": 0}, "workers: expected a whole number ≥ 1, got 0"),
        ({"workers": 2}, "workers: expected an engine with workers, got engine 'local'. Add --engine processes"),
        ({"name": "processes", "address": "a:1"}, "address: expected engine 'ray', got engine 'processes'. Add"),
    ],
)
def test_engines_refused(options, message):
    with pytest.raises(OptionError) as caught:
        Engine(**options)
    assert str(caught.value).startswith(message)


def test_parts_are_read():
    assert parse_part("0/3") == (0, 3)
    with pytest.raises(OptionError, match="expected i/N with 0 ≤ i < N, such as 0/2, got '3/3'"):
        parse_part("3/3")
