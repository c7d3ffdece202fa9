"""Epochs: what is begun by a reprocess, and when ordinary traffic runs under it."""

from __future__ import annotations

import pytest

from ingest.settings import EPOCH_SECONDS
from sinks import control
from sinks.deadline import Deadline
from tests.support import Clock, Cloud, cloud


@pytest.fixture
def account():
    with cloud() as made:
        yield made


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
