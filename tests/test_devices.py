"""The generated fleet: the same for a seed, uneven, and broken in exactly the planted ways."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import islice, pairwise

import orjson
import pytest

from infra.cli.demo import SEED
from transform.contract import Contract
from transform.contract_file import load_contract, parse_contract
from transform.devices import Fleet, Message, breakages
from transform.pipeline import Transform
from transform.plan import Plan
from transform.records import Delivery, Rejection

HOUR = 3_600_000_000  # microseconds
NOON = 1_795_521_600_000_000  # 2026-11-24T12:00:00Z
FLAT_ISO = b"""
name = "flat"

[identity]
device = "device"
event_time = "taken_at"

[[field]]
name = "device"
path = "sensor"
type = "string"

[[field]]
name = "taken_at"
path = "at"
type = "timestamp"
format = "iso8601"

[[field]]
name = "celsius"
type = "float64"
required = true
min = -60
max = 125

[[field]]
name = "count"
type = "int64"
min = 5
max = 9

[[field]]
name = "level"
type = "int64"
allowed = [1, 2, 3]

[[field]]
name = "on"
type = "bool"

[[field]]
name = "seen_at"
type = "timestamp"
format = "epoch_seconds"
"""
# No field has a list or an upper bound: two ways fewer to break a message.
PLAIN = b"""
name = "plain"
identity = { device = "d", event_time = "t" }
field = [
    { name = "d", type = "string" },
    { name = "t", type = "timestamp", format = "epoch_seconds" },
    { name = "v", type = "float64", min = 500 },
]
"""
CONTRACTS = ("telemetry", "environment-sensors", "flat", "plain")


@cache
def contract(name: str) -> Contract:
    written = {"flat": FLAT_ISO, "plain": PLAIN}
    return parse_contract(written[name], name) if name in written else load_contract(name)


def fleet(name: str = "telemetry", **more: object) -> Fleet:
    made = Fleet(contract(name), seed=7, start=NOON - HOUR, stop=NOON, devices=20)
    return replace(made, **more)  # type: ignore[arg-type]


def verdicts(rules: Contract, messages: Iterable[Message]) -> dict[int, str]:
    """What Transform says of each message that arrived at noon: the reason, or nothing."""
    bodies = [message.body for message in messages]
    count = len(bodies)
    delivery = Delivery(
        source="kinesis",
        stream="fleet",
        shards=["s"] * count,
        sequences=[str(number) for number in range(count)],
        groups=["k"] * count,
        arrivals=[NOON] * count,
        attributes=[None] * count,
        bodies=bodies,
    )
    made = Transform(rules).apply(delivery.table(), "raw/x")
    said = dict.fromkeys(made.rows.column("_index").to_pylist(), "")
    for index, reason in zip(
        made.rejects.column("_index").to_pylist(),
        made.rejects.column("_reason").to_pylist(),
        strict=True,
    ):
        assert index not in said
        said[index] = reason
    assert len(said) == count
    return said


# ---- The same again ----


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_same_seed_gives_the_same_messages(name):
    assert list(fleet(name).messages(500)) == list(fleet(name).messages(500))


def test_another_seed_gives_other_messages():
    ours = [message.body for message in fleet().messages(200)]
    others = [message.body for message in fleet(seed=8).messages(200)]
    assert len(set(ours) & set(others)) < 20


def test_a_fleet_can_be_generated_twice_at_once():
    one, two = fleet().messages(50), fleet().messages(50)
    assert [next(one) for _ in range(50)] == [next(two) for _ in range(50)]


# ---- Planted ----


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_message_is_rejected_for_what_was_planted_and_for_nothing_else(name):
    messages = list(fleet(name, malformed=0.1).messages(2_000))
    said = verdicts(contract(name), messages)
    wrong = [
        (message.planted, said[number], message.body[:200])
        for number, message in enumerate(messages)
        if said[number] != (message.planted or "")
    ]
    assert wrong == []


@pytest.mark.parametrize(("name", "kinds"), [*zip(CONTRACTS, (11, 10, 11, 9), strict=True)])
def test_every_way_to_break_a_message_occurs(name, kinds):
    ways = breakages(contract(name))
    assert len(ways) == kinds >= 8
    planted = Counter(m.planted for m in fleet(name, malformed=0.05).messages(1_000) if m.planted)
    assert planted.keys() == ways.keys()
    assert max(planted.values()) - min(planted.values()) <= 1


@pytest.mark.parametrize("records", [1_000, 5_000, 100_000])
def test_the_demo_plants_at_least_eight_kinds(records):
    """Whatever the time is: what is planted is drawn from the seed alone."""
    shown = fleet(seed=SEED, devices=min(1_000, max(records // 50, 20)))
    planted = {message.planted for message in islice(shown.messages(records), 5_000)}
    assert len(planted - {None}) >= 8


def test_a_fleet_can_be_without_fault():
    messages = list(fleet(malformed=0, repeats=0).messages(500))
    assert not any(message.planted or message.repeat for message in messages)
    assert len({message.body for message in messages}) == 500


def test_an_oversize_message_still_goes_through_kinesis_and_sqs():
    for name in CONTRACTS:
        for message in fleet(name, malformed=0.1).messages(300):
            assert len(message.body) < 2**20


def test_only_what_is_not_utf8_cannot_go_by_sqs():
    for message in fleet(malformed=0.2).messages(500):
        if message.planted == "not_utf8":
            with pytest.raises(UnicodeDecodeError):
                message.body.decode()
        else:
            assert message.body.decode().isprintable()


# ---- Repeats ----


def test_repeats_are_the_bytes_of_an_earlier_message_that_was_not_broken():
    seen: set[bytes] = set()
    repeats = 0
    for message in fleet(repeats=0.1).messages(2_000):
        assert message.repeat == (message.body in seen)
        assert not (message.repeat and message.planted)
        repeats += message.repeat
        if not message.planted:
            seen.add(message.body)
    assert 140 < repeats < 260


def test_repeats_are_all_there_is_between_delivered_rows_and_identities():
    messages = list(fleet(repeats=0.1).messages(1_000))
    good = [message for message in messages if not message.planted]
    assert len(good) - len({message.body for message in good}) == sum(m.repeat for m in messages)


# ---- A fleet ----


def test_rates_are_very_uneven():
    counts = Counter(m.device for m in fleet(devices=1_000).messages(20_000)).most_common()
    busiest = counts[0][1] / 20_000
    assert 0.1 < busiest < 0.25
    assert sum(count for _, count in counts[:100]) > 0.6 * 20_000
    assert counts[-1][1] <= 5
    assert len(counts) > 900


def test_a_message_is_under_its_own_device():
    for message in fleet().messages(300):
        if not message.planted:
            assert orjson.loads(message.body)["device_id"] == message.device


def test_event_times_run_evenly_from_start_to_stop():
    messages = list(fleet(malformed=0, repeats=0).messages(1_000))
    times = [orjson.loads(message.body)["ts"] for message in messages]
    assert times[0] == (NOON - HOUR) // 1_000
    assert times == sorted(times)
    assert {b - a for a, b in pairwise(times)} == {3_600}
    assert times[-1] < NOON // 1_000


def test_signals_drift_and_stay_in_their_range():
    by_device = defaultdict(list)
    for message in fleet(malformed=0, repeats=0).messages(5_000):
        reading = orjson.loads(message.body)
        by_device[message.device].append(reading["readings"]["temperature"])
        assert -60 <= reading["readings"]["temperature"] <= 125
        assert 0 <= reading["readings"]["humidity"] <= 100
    busiest = max(by_device.values(), key=len)
    assert max(abs(b - a) for a, b in pairwise(busiest)) < 5
    assert len(set(busiest)) > len(busiest) / 2


def test_counters_count_within_their_range():
    counts = [
        orjson.loads(m.body)["count"]
        for m in fleet("flat", devices=1, malformed=0, repeats=0).messages(12)
    ]
    assert counts == [5, 6, 7, 8, 9, 5, 6, 7, 8, 9, 5, 6]


EDGES = """
name = "edges"
[identity]
device = "id"
event_time = "at"
[[field]]
name = "id"
type = "string"
[[field]]
name = "at"
type = "timestamp"
format = "epoch_seconds"
[[field]]
name = "below"
type = "int64"
max = -1
[[field]]
name = "far_below"
type = "int64"
max = -9223372036854775808
[[field]]
name = "listed"
type = "int64"
allowed = [1, 2]
max = 9
[[field]]
name = "narrow"
type = "float64"
min = 0.00011
max = 0.00012
[[field]]
name = "huge"
type = "float64"
max = 1e300
[[field]]
name = "minus"
type = "float64"
max = -5
"""


def test_ranges_at_the_edges_are_kept_and_exceeded():
    contract = parse_contract(EDGES.encode(), "edges.toml")
    fleet = Fleet(contract, seed=1, start=0, stop=1_000_000, devices=3, malformed=0.3)
    decoder = Plan(contract).message
    for message in fleet.messages(300):
        result = decoder.decode(message.body)
        if message.planted is None:
            assert not isinstance(result, Rejection), result
        elif message.planted != "future_time":  # which only arrival can tell
            assert isinstance(result, Rejection)
            assert result.reason == message.planted
