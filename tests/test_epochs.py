"""Epochs: what is begun by a reprocess, and when ordinary traffic runs under it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from infra.doubles.s3 import S3
from infra.doubles.world import Call, Calm, Fault, Scripted
from ingest.settings import EPOCH_SECONDS
from sinks import control
from sinks.bucket import RACES_MAX, Bucket
from sinks.control import Reprocessed
from sinks.deadline import Deadline
from sinks.errors import Unavailable
from tests.support import Clock, Cloud

T = TypeVar("T")


def test_before_any_reprocess_the_epoch_is_0(account: Cloud) -> None:
    assert control.epoch(account.bucket) == 0
    assert account.wiring().epoch() == 0


def test_ordinary_traffic_runs_under_the_greatest_epoch_within_half_a_minute(
    account: Cloud,
) -> None:
    clock = Clock()
    wiring = account.wiring(clock)
    assert wiring.epoch() == 0
    control.begin(account.bucket, 0, 10, "rules")
    assert wiring.epoch() == 0
    clock.now += EPOCH_SECONDS
    assert wiring.epoch() == 1


def test_a_clock_that_jumps_back_makes_it_look_again(account: Cloud) -> None:
    clock = Clock()
    wiring = account.wiring(clock)
    wiring.epoch()
    control.begin(account.bucket, 0, 10, "rules")
    clock.now -= 3_600
    assert wiring.epoch() == 1


def test_a_range_that_is_not_done_is_gone_on_with(account: Cloud) -> None:
    bucket = account.bucket
    first = control.begin(bucket, 0, 10, "rules")
    assert control.begin(bucket, 0, 10, "rules") == first
    other = control.begin(bucket, 0, 11, "rules")
    assert (first.epoch, other.epoch) == (1, 2)
    control.finish(bucket, other)
    assert control.begin(bucket, 0, 11, "rules").epoch == 3
    assert [(one.epoch, one.done) for one in control.reprocessed(bucket)] == [
        (1, False),
        (2, True),
        (3, False),
    ]


@dataclass
class Meanwhile(Calm):
    """Where just before a write something else is written, once for each in `others`."""

    others: list[Callable[[], object]] = field(default_factory=list)

    def effect(self, call: Call, act: Callable[[], T]) -> T:
        if call.operation == "PutObject" and self.others:
            self.others.pop()()
        return act()


def test_operators_who_begin_at_once_get_an_epoch_each() -> None:
    world = Meanwhile()
    bucket = Bucket(S3(world, {"bucket": {}}), "bucket")  # type: ignore[arg-type]
    other: list[Reprocessed] = []
    world.others = [
        lambda: other.append(control.begin(bucket, 0, 30, "rules")),
        lambda: other.append(control.begin(bucket, 0, 20, "rules")),
    ]
    mine = control.begin(bucket, 0, 10, "rules")
    epochs = {10: mine.epoch, **{one.to_micros: one.epoch for one in other}}
    assert epochs == {30: 1, 20: 2, 10: 3}
    assert [one.to_micros for one in control.reprocessed(bucket)] == [30, 20, 10]
    world.others = [lambda: control.finish(bucket, other[1])]
    control.finish(bucket, mine)
    assert [one.done for one in control.reprocessed(bucket)] == [False, True, True]


def test_operators_who_begin_the_same_at_once_go_on_together() -> None:
    world = Meanwhile()
    bucket = Bucket(S3(world, {"bucket": {}}), "bucket")  # type: ignore[arg-type]
    world.others = [lambda: control.begin(bucket, 0, 10, "rules")]
    assert control.begin(bucket, 0, 10, "rules").epoch == 1
    assert len(control.reprocessed(bucket)) == 1


@pytest.mark.parametrize("fault", ["twice", "conflict"])
def test_a_write_whose_answer_was_lost_begins_one_epoch(fault: Fault) -> None:
    bucket = Bucket(S3(Scripted([None, fault]), {"bucket": {}}), "bucket")  # type: ignore[arg-type]
    assert control.begin(bucket, 0, 10, "rules").epoch == 1
    assert len(control.reprocessed(bucket)) == 1


def test_an_epoch_that_others_keep_busy_is_not_begun() -> None:
    busy: list[Fault | None] = [None, "conflict"] * RACES_MAX
    bucket = Bucket(S3(Scripted(busy), {"bucket": {}}), "bucket")  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match=r"change s3://bucket/control/epoch.json: other writers"):
        control.begin(bucket, 0, 10, "rules")
    assert control.epoch(bucket) == 0


def test_delete_all_takes_more_than_one_batch(account: Cloud) -> None:
    clock = Clock()
    keys = [("device", f"{number:03}") for number in range(60)]
    account.hot.put_all(
        {key: {"pk": {"S": key[0]}, "sk": {"S": key[1]}} for key in keys},
        Deadline(clock.now + 60, clock),
        clock.waiting(),
    )
    deadline = Deadline(clock.now + 60, clock)
    left = account.hot.delete_all([*keys[:55], ("device", "none")], deadline, clock.waiting())
    assert left == set()
    assert sorted(account.hot.all_keys()) == keys[55:]
    late = Deadline(clock.now - 1, clock)
    assert account.hot.delete_all(keys[55:], late, clock.waiting()) == set(keys[55:])
