"""`why` tells a record's story by its position or its record id."""

from __future__ import annotations

import json

import pytest

from infra.why import why
from ingest.parked import dead_letters
from tests.support import Cloud, reading
from tests.test_verify import QUEUE, SHARD, STREAM, State, letter

ID = "sensor-1/2026-11-24T12:00:00.000000Z/1"


@pytest.fixture
def state(account: Cloud) -> State:
    return State(account)


def test_a_record_by_its_position(state: State):
    state.deliver(reading(seq=1), b"no")
    state.deliver(reading(seq=1), b"no", reading(seq=2))
    [story] = why(state.stores(), f"{STREAM}/{SHARD}/100")
    assert (story.position, story.fate) == (f"{STREAM}/{SHARD}/100", "delivered")
    assert len(story.received) == len(story.attempts) == 2
    assert [row["done"] for row in story.attempts] == [True, True]
    assert [row["verdict"] for row in story.elements] == ["delivered"]
    assert story.elements[0]["object"].startswith("landing/telemetry/")
    assert len(story.superseded) == 1
    assert [(row["pk"], row["there"]) for row in story.hot] == [("sensor-1#2026-11-24", True)]
    assert story.same_id == []
    json.dumps(story.to_json())
    [rejected] = why(state.stores(), f"{STREAM}/{SHARD}/101")
    assert (rejected.fate, rejected.elements[0]["verdict"]) == ("quarantined", "malformed_json")


def test_a_record_id_finds_its_repeats_and_conflicts(state: State):
    state.deliver(reading(seq=1), reading(seq=1), reading(seq=1, note="other"))
    stories = why(state.stores(), ID)
    assert [story.position[-3:] for story in stories] == ["100", "101", "102"]
    assert [(row["position"][-3:], row["relation"]) for row in stories[0].same_id] == [
        ("101", "repeat"),
        ("102", "conflict"),
    ]


def test_a_parked_message_and_one_handed_back(state: State):
    state.wiring.workflow.down = True
    state.message(reading(seq=1), "m-1")
    state.parked = dead_letters(QUEUE, [letter(reading(seq=1), "m-1")])
    [story] = why(state.stores(), f"{QUEUE}//m-1")
    assert story.fate == "parked"
    assert story.parked == [
        {"place": f"the dead-letter queue of {QUEUE}", "arrival": "2026-11-24T12:00:00Z"}
    ]
    assert story.received[0]["source"] == "sqs"


def test_nothing_is_known(state: State):
    state.deliver(reading(seq=1))
    assert why(state.stores(), "nobody") == []
