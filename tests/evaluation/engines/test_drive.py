"""The driver with a pool of its own making: order, room, retries, failures."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch

from robustode.evaluation.engines.drive import RETRIES, Answer, drive
from robustode.evaluation.engines.tasks import Task


def task(number: int) -> Task:
    return Task(number=number, model=0, attack=number, shard=0, label="m", name=f"a{number}")


def single(count: int) -> list[tuple[Task, ...]]:
    return [(task(number),) for number in range(count)]


class Pool:
    """Answers the tasks in flight in the order of `first`, else as they came; `fates` says how each attempt ends."""

    def __init__(self, size: int = 1, fates: dict[int, list[str]] | None = None, last: int | None = None) -> None:
        self.size, self.fates, self.last = size, fates or {}, last
        self.flying: deque[Task] = deque()
        self.begun: list[int] = []
        self.most = 0
        self.given: dict[int, Any] = {}

    def start(self, task, found):
        self.begun.append(task.number)
        self.given[task.number] = found
        self.flying.append(task)
        self.most = max(self.most, len(self.flying))

    def answer(self):
        if self.flying[0].number == self.last and len(self.flying) > 1:
            self.flying.rotate(-1)  # the slow one
        one = self.flying.popleft()
        fate = self.fates.get(one.number, [])
        end = fate.pop(0) if fate else "unit"
        if end == "unit":
            return Answer(task=one, unit=Made())
        return Answer(task=one, error=end, lost=end == "killed")


class Made:
    halved = None


def driven(groups, pool):
    kept = []
    out = drive(groups, pool, found=lambda one: torch.tensor(len(kept)), keep=lambda one, unit: kept.append(one.number))
    return out, kept


def test_in_order_and_never_more_than_there_is_room():
    for size in (1, 3):
        pool = Pool(size)
        out, kept = driven(single(10), pool)
        assert pool.begun == kept == list(range(10))
        assert pool.most == size
        assert out.failed == out.retries == {}


def test_within_a_group_each_waits_for_the_one_before():
    groups = [(task(0), task(3), task(5)), (task(1),), (task(2),), (task(4),)]
    pool = Pool(2)
    _, kept = driven(groups, pool)
    assert sorted(kept) == list(range(6))
    assert kept.index(0) < pool.begun.index(3) + 1
    for number, before in ((3, 0), (5, 3)):
        assert int(pool.given[number]) > kept.index(before)  # asked when the one before was kept


def test_in_one_process_the_order_is_that_of_the_numbers():
    groups = [(task(0), task(2)), (task(1), task(3))]
    assert driven(groups, Pool(1))[1] == [0, 1, 2, 3]


def test_a_slow_unit_holds_up_no_other():
    pool = Pool(2, last=0)
    _, kept = driven(single(8), pool)
    assert kept == [1, 2, 3, 4, 5, 6, 7, 0]


def test_a_lost_unit_is_begun_again():
    out, kept = driven(single(4), Pool(2, {1: ["killed"], 2: ["killed"] * RETRIES}))
    assert sorted(kept) == [0, 1, 2, 3]
    assert out.retries == {"m · a1 · shard 0": 1, "m · a2 · shard 0": RETRIES}
    assert out.failed == {}


def test_a_unit_that_always_loses_its_worker_fails_and_the_others_end():
    pool = Pool(2, {1: ["killed"] * 100})
    out, kept = driven(single(4), pool)
    assert sorted(kept) == [0, 2, 3]
    assert pool.begun.count(1) == 1 + RETRIES
    assert out.failed == {"m · a1 · shard 0": f"killed, {1 + RETRIES} times"}


def test_an_error_is_not_tried_again():
    pool = Pool(2, {1: ["ValueError: no"] * 100})
    out, kept = driven(single(3), pool)
    assert pool.begun.count(1) == 1
    assert out.failed == {"m · a1 · shard 0": "ValueError: no"}
    assert sorted(kept) == [0, 2]


def test_what_waits_for_a_unit_that_failed_fails_with_it():
    out, kept = driven([(task(0), task(2), task(3)), (task(1),)], Pool(1, {0: ["no"]}))
    assert kept == [1]
    assert list(out.failed) == ["m · a0 · shard 0", "m · a2 · shard 0", "m · a3 · shard 0"]
    assert out.failed["m · a3 · shard 0"] == "it waits for a0, which failed"


def test_failed_units_are_named_in_their_order_however_they_end():
    out, _ = driven(single(12), Pool(12, {number: ["no"] for number in (0, 2, 10)}, last=0))
    assert list(out.failed) == ["m · a0 · shard 0", "m · a2 · shard 0", "m · a10 · shard 0"]


def test_what_stops_the_driver_goes_on_its_way():
    def full(one, unit):
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        drive(single(3), Pool(2), found=lambda one: None, keep=full)
