"""Watermarks: nothing is said to be settled that is not, and what says nothing holds all back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import boto3
import pytest
from moto import mock_aws

from infra.doubles.kinesis import Kinesis
from infra.doubles.world import Calm
from infra.esm.simulate import EPOCH
from infra.esm.simulated_stream import SimulatedStream
from ingest import markers
from sinks.errors import Unavailable
from sinks.lake.watermark import (
    Lanes,
    Queue,
    Shard,
    Watermark,
    least,
    of_queue,
    of_shards,
    settled,
    waiting,
)
from sinks.ledger import Attempt
from tests.support import NOON, SECOND

ONE = Lanes()
TWO = Lanes(2, 10 * SECOND)
NOTHING: dict[str, Any] = {
    one.name: () if "tuple" in str(one.type) else 0 if one.type == "int" else ""
    for one in fields(Attempt)
}


def attempt(raw_key: str = "raw/a", shard: str = "0", last: int = NOON, **told: Any) -> Attempt:
    """An attempt at a Delivery of ten records, all of which it settled."""
    whole = {"archived": 10, "received": 10, "first_arrival": last, "last_arrival": last}
    return Attempt(**NOTHING | whole | {"stream": "s", "raw_key": raw_key, "shard": shard} | told)


# Shards, one batch after the other


def test_a_shard_is_as_far_as_its_newest_delivery_that_is_settled_as_a_whole():
    made = [attempt("raw/a"), attempt("raw/b", last=NOON + 5), attempt("raw/c", last=NOON + 3)]
    assert settled(made) == {("s", "0"): NOON + 5}


def test_what_is_handed_back_in_part_says_nothing():
    part = attempt("raw/b", last=NOON + 9, retry=((4, 10),))
    assert settled([attempt(), part]) == {("s", "0"): NOON}


def test_parts_of_a_delivery_count_together():
    halves = [attempt(received=5), attempt(first=5, received=5)]
    assert settled(halves[:1]) == {}
    assert settled(halves) == {("s", "0"): NOON}


def test_what_no_mapping_brought_says_nothing():
    assert settled([attempt(shard=""), attempt(archived=0)]) == {}


def test_a_shard_without_an_attempt_holds_everything_back():
    found = of_shards("s", [Shard("0"), Shard("1")], {("s", "0"): NOON}, {}, ONE)
    assert [one.until for one in found] == [NOON, None]
    assert least(found) == (None, True)


def test_a_parent_is_done_when_a_child_of_it_is_begun():
    shards = [
        Shard("0", closed=True),
        Shard("1", closed=True),
        Shard("2", parents=("0", "1"), closed=True),
        Shard("3", parents=("2",)),
    ]
    found = of_shards("s", shards, {("s", "0"): NOON}, {}, ONE)
    assert [one.ended for one in found] == [False] * 4
    found = of_shards("s", shards, {("s", "0"): NOON, ("s", "3"): NOON + 7}, {}, ONE)
    assert [one.ended for one in found] == [True, True, True, False]
    assert least(found) == (NOON + 7, True)


# Several keys at once


def test_with_lanes_nothing_newer_than_what_waits_is_counted():
    place = ("s", "0", "1")
    archived = {"raw/a": [(place, NOON)], "raw/b": [(("s", "0", "2"), NOON + 60 * SECOND)]}
    late = attempt("raw/b", last=NOON + 60 * SECOND, archived=1, received=1)
    waits = waiting(archived, [late])
    assert (waits.oldest, waits.since) == ({("s", "0"): NOON}, NOON)
    [found] = of_shards("s", [Shard("0")], settled([late]), waits.oldest, TWO)
    assert (found.until, found.exact) == (NOON - 1, False)
    gone = waiting(archived, [late], {place})
    [found] = of_shards("s", [Shard("0")], settled([late]), gone.oldest, TWO)
    assert (found.until, found.exact) == (NOON + 50 * SECOND, False)


# Queues


@pytest.mark.parametrize(
    ("queue", "until"),
    [
        (Queue("q", NOON, 0), NOON),
        (Queue("q", NOON, 0, emptied=NOON - 5), NOON),
        (Queue("q", NOON, 3), None),
        (Queue("q", NOON, 3, emptied=NOON - 5), NOON - 5),
        (Queue("q", NOON, 3, 2.0), NOON - 2 * SECOND),
        (Queue("q", NOON, 3, 2.0, NOON - 5), NOON - 5),
    ],
)
def test_a_queue_is_known_when_it_is_empty_or_by_its_oldest_message(queue: Queue, until: int):
    found = of_queue(queue)
    assert (found.until, found.exact) == (until, False)


def test_a_queue_that_never_had_a_message_is_exact_as_long_as_it_is_empty():
    assert of_queue(Queue("q", NOON, 0, used=False)).exact
    assert not of_queue(Queue("q", NOON, 1, used=False)).exact


def test_one_approximate_source_makes_all_of_it_approximate():
    some = [Watermark("a", 5, exact=True, why=""), Watermark("b", 7, exact=False, why="")]
    assert least(some) == (5, False)
    assert least([]) == (None, True)


# Markers


def test_a_marker_goes_into_every_open_shard():
    stream = SimulatedStream(3)
    stream.split("shardId-000000000001")
    client: Any = Kinesis(Calm(lambda: EPOCH), {"s": stream})
    assert markers.put(client, "s", markers.shards_of(client, "s"), NOON) == 4
    held = {name: len(shard.records) for name, shard in stream.shards.items()}
    assert held == {name: int(not shard.closed) for name, shard in stream.shards.items()}


def test_a_marker_that_is_not_taken_is_weather():
    class Full:
        def put_records(self, **_: Any) -> dict[str, Any]:
            return {"FailedRecordCount": 1}

    full: Any = Full()
    with pytest.raises(Unavailable, match="1 of 1 markers"):
        markers.put(full, "s", [Shard("0")], NOON)


def test_shards_are_listed_with_parents_and_closed_ones():
    with mock_aws():
        client = boto3.client("kinesis", region_name="us-east-1")
        client.create_stream(StreamName="s", ShardCount=2)
        first = markers.shards_of(client, "s")
        assert [(s.parents, s.closed) for s in first] == [((), False)] * 2
        middle = str(int(first[0].start) + 1_000)
        client.split_shard(StreamName="s", ShardToSplit=first[0].name, NewStartingHashKey=middle)
        after = {s.name: s for s in markers.shards_of(client, "s")}
        assert after[first[0].name].closed
        assert sum(first[0].name in s.parents and not s.closed for s in after.values()) == 2
