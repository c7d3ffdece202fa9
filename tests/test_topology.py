"""A wrong description cannot be made, and the state machine is what the design says it is."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonata.jsonata import Jsonata

from infra.relations import (
    ESM_BATCH_MAX,
    ESM_WINDOW_MAX_SECONDS,
    EXPRESS_MAX_SECONDS,
    LAMBDA_TIMEOUT_MAX_SECONDS,
)
from infra.topology import TELL_PAUSE_SECONDS, TELL_TRIES, WORKFLOWS, Topology, pipeline
from ingest import feed
from ingest.settings import Settings
from ingest.workflow import TransformDied
from transform.contract_file import load_contract

SOUND = pipeline("telemetry", "telemetry")
ARNS = {function.name: f"arn:aws:lambda:::{function.name}" for function in SOUND.functions}
TEXT = (WORKFLOWS / SOUND.workflow.definition).read_text()
MACHINE: dict[str, Any] = json.loads(SOUND.definition(ARNS))
STATES: dict[str, dict[str, Any]] = MACHINE["States"]
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}


def changed(path: str, **changes: Any) -> Topology:
    """The sound topology with one of its parts changed, or one of that part's."""
    name, _, inner = path.partition(".")
    part = getattr(SOUND, name)
    if inner:
        changes = {inner: replace(getattr(part, inner), **changes)}
    return replace(SOUND, **{name: replace(part, **changes)})


# Relations


@pytest.mark.parametrize(
    ("path", "changes", "why"),
    [
        ("transform", {"timeout_seconds": 23}, "at most 1/8 of ingest's"),
        ("hot", {"timeout_seconds": 86}, "stages' 121 s must fit in the workflow's"),
        ("workflow", {"settle_timeout_seconds": 36}, "stages' 121 s must fit in the workflow's"),
        ("workflow", {"tell_timeout_seconds": 15}, "stages' 121 s must fit in the workflow's"),
        ("workflow", {"timeout_seconds": 94}, "stages' 95 s must fit in the workflow's"),
        ("workflow", {"timeout_seconds": EXPRESS_MAX_SECONDS + 1}, "and that in 300 s"),
        ("workflow", {"timeout_seconds": 180}, "under ingest's, or ingest dies waiting"),
        ("ingest_stream", {"timeout_seconds": 120}, "under ingest's, or ingest dies waiting"),
        ("ingest_queue", {"timeout_seconds": 120}, "under ingest's, or ingest dies waiting"),
        (
            "ingest_stream",
            {"timeout_seconds": LAMBDA_TIMEOUT_MAX_SECONDS + 1},
            "a function's timeout is at most 900 s",
        ),
        ("queue", {"visibility_seconds": 1_080}, "six times ingest's timeout plus the window"),
        ("queue_mapping", {"window_seconds": 31}, "six times ingest's timeout plus the window"),
        ("ingest_queue", {"timeout_seconds": 185}, "six times ingest's timeout plus the window"),
        ("queue", {"retention_seconds": 1_209_601}, "at least as long as the queue"),
        ("dead_letters", {"retention_seconds": 345_599}, "at least as long as the queue"),
        ("stream_mapping", {"batch_size": 0}, "a mapping's batch is 1 to 10000 records"),
        ("queue_mapping", {"batch_size": ESM_BATCH_MAX + 1}, "a mapping's batch is 1 to 10000"),
        ("stream_mapping", {"window_seconds": -1}, "its window 0 to 300 s"),
        ("stream_mapping", {"window_seconds": ESM_WINDOW_MAX_SECONDS + 1}, "its window 0 to 300"),
        ("stream_mapping", {"window_seconds": 0.5}, "a window of at least 1 s"),
        ("queue_mapping", {"batch_size": 11, "window_seconds": 0}, "a window of at least 1 s"),
        ("queue", {"name": "orders.fifo"}, "takes 10 messages a batch at most, and no window"),
        ("dead_letters", {"name": "x.fifo"}, "a FIFO queue's dead letters go to a FIFO queue"),
        ("transform", {"timeout_seconds": 15}, "a stage's timeout must be over 15 s"),
        ("hot", {"timeout_seconds": 6}, "a stage's timeout must be over 15 s"),
        (
            "stream_mapping",
            {"maximum_record_age_seconds": 604_800},
            "a record must grow too old for its mapping before it expires",
        ),
        ("stream", {"retention_hours": 144}, "a record must grow too old for its mapping"),
        ("ingest_stream", {"reserved_concurrency": 1}, "ingest must reserve what its mapping"),
        ("ingest_queue", {"reserved_concurrency": 1}, "ingest must reserve what its mapping"),
        ("queue_mapping", {"maximum_concurrency": 21}, "ingest must reserve what its mapping"),
        ("transform", {"reserved_concurrency": 7}, "up to 4 Deliveries wait at once"),
        ("hot", {"reserved_concurrency": 7}, "up to 4 Deliveries wait at once"),
        ("repair_queue", {"visibility_seconds": 359}, "six times repair's timeout plus"),
        ("repair", {"timeout_seconds": 61}, "six times repair's timeout plus the window"),
        ("repair", {"timeout_seconds": 15}, "repair's timeout must be over 15 s"),
        ("repair", {"reserved_concurrency": 1}, "repair must reserve what its mapping can ask"),
        ("repair_queue", {"retention_seconds": 1_209_599}, "keep debts as long as SQS can"),
        ("repair_queue", {"dead_letter": "x", "max_receive_count": 9}, "and move them nowhere"),
        ("repair_mapping", {"batch_size": 11}, "the repair mapping takes 1 to 10 debts"),
        ("repair_mapping", {"batch_size": 0}, "the repair mapping takes 1 to 10 debts"),
        ("stream", {"shards": 19}, "up to 21 Deliveries wait at once"),
        ("stream_mapping", {"parallelization_factor": 10}, "up to 22 Deliveries wait at once"),
        ("upkeep.compact", {"reserved_concurrency": 2}, "upkeep's functions must reserve 1"),
        ("upkeep.publish", {"reserved_concurrency": 2}, "upkeep's functions must reserve 1"),
        ("upkeep.publish", {"timeout_seconds": 901}, "upkeep's functions have at most 900 s"),
        ("upkeep", {"timeout_seconds": 3_599}, "room for four steps at least"),
    ],
)
def test_a_relation_that_does_not_hold_is_named(path: str, changes: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=f"^topology 'telemetry': .*{re.escape(why)}"):
        changed(path, **changes)


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("transform", {"timeout_seconds": 22}),
        ("workflow", {"timeout_seconds": 95}),
        ("workflow", {"timeout_seconds": 179}),
        ("queue", {"visibility_seconds": 1_081}),
        ("dead_letters", {"retention_seconds": 345_600}),
        ("stream_mapping", {"batch_size": ESM_BATCH_MAX, "window_seconds": 300}),
        ("queue_mapping", {"batch_size": 10, "window_seconds": 0}),
        ("hot", {"timeout_seconds": 16}),
        ("stream_mapping", {"maximum_record_age_seconds": 604_799}),
        ("ingest_stream", {"reserved_concurrency": 2}),
        ("hot", {"reserved_concurrency": 8}),
        ("stream", {"shards": 18}),
    ],
)
def test_a_relation_that_just_holds_is_accepted(path: str, changes: dict[str, Any]):
    changed(path, **changes)


def test_the_edges_between_parts_meet():
    assert SOUND.stream_mapping.stream == SOUND.stream.name
    assert SOUND.stream_mapping.function == SOUND.ingest_stream.name
    assert SOUND.queue_mapping.queue == SOUND.queue.name
    assert SOUND.queue_mapping.function == SOUND.ingest_queue.name
    assert SOUND.queue.dead_letter == SOUND.dead_letters.name
    assert len({function.name for function in SOUND.functions}) == 5
    assert len({table.name for table in SOUND.tables}) == 2
    assert SOUND.repair_mapping.queue == SOUND.repair_queue.name
    assert SOUND.repair_mapping.function == SOUND.repair.name
    assert SOUND.repair.environment["MILLRACE_REPAIR_QUEUE"] == SOUND.repair_queue.name
    assert len({queue.name for queue in SOUND.queues}) == 3
    assert SOUND.hot_table.ttl_attribute == "expires_at"


def test_handlers_are_import_paths_and_environments_are_complete():
    for function in SOUND.functions:
        module, _, name = function.handler.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
        settings = Settings.of(function.environment)
        assert settings.pipeline == "millrace-telemetry"
        assert settings.bucket == SOUND.bucket
        assert settings.ledger_table == SOUND.ledger_table.name
        assert settings.repair_queue == SOUND.repair_queue.name
        assert settings.hot_table == SOUND.hot_table.name
        assert load_contract(settings.contract).name == "telemetry"
        assert bool(settings.workflow) == (function in (SOUND.ingest_stream, SOUND.ingest_queue))
        assert function.environment["POWERTOOLS_METRICS_NAMESPACE"]


def test_names_fit_their_services():
    longest = pipeline("x" * 40, "telemetry")
    assert max(len(function.name) for function in longest.functions) <= 64
    assert (
        max(
            len(queue.name) for queue in (longest.queue, longest.dead_letters, longest.repair_queue)
        )
        <= 80
    )
    assert len(longest.workflow.name) <= 80
    assert len(longest.stream.name) <= 128


def test_a_pipeline_can_have_a_fifo_queue():
    made = pipeline("telemetry", "telemetry", fifo=True)
    assert (made.queue.name, made.queue_mapping.queue) == ("millrace-telemetry.fifo",) * 2
    assert (
        made.queue.dead_letter == made.dead_letters.name == "millrace-telemetry-dead-letters.fifo"
    )
    assert (made.queue_mapping.batch_size, made.queue_mapping.window_seconds) == (10, 0)
    assert not made.repair_queue.fifo
    changed = {"queue", "dead_letters", "queue_mapping"}
    assert {name for name, part in vars(made).items() if part != vars(SOUND)[name]} == changed
    assert len(pipeline("x" * 40, "telemetry", fifo=True).dead_letters.name) <= 80


@pytest.mark.parametrize(("name", "fifo"), [("orders.fifo", True), ("orders", False)])
def test_a_fifo_queue_is_known_by_its_name(name: str, fifo: bool):  # noqa: FBT001
    assert replace(SOUND.queue, name=name).fifo == fifo


# The definition


def test_every_placeholder_is_filled_and_numbers_are_numbers():
    assert "${" not in SOUND.definition(ARNS)
    assert set(re.findall(r"\$\{(\w+)\}", TEXT)) == {
        "WorkflowTimeoutSeconds",
        "TransformTimeoutSeconds",
        "HotTimeoutSeconds",
        "SettleTimeoutSeconds",
        "TransformFunctionArn",
        "HotFunctionArn",
        "LedgerTable",
        "EventBus",
        "TellTimeoutSeconds",
        "TellMillis",
    }
    assert MACHINE["TimeoutSeconds"] == 120
    assert [STATES[name]["TimeoutSeconds"] for name in TASKS] == [20, 60, 10, 2]
    assert STATES["Transform"]["Arguments"]["FunctionName"] == ARNS["millrace-telemetry-transform"]
    assert STATES["Hot"]["Arguments"]["FunctionName"] == ARNS["millrace-telemetry-hot"]
    assert STATES["Settle"]["Arguments"]["TableName"] == SOUND.ledger_table.name


def test_a_placeholder_without_a_value_is_refused(tmp_path: Path):
    file = tmp_path / "odd.asl.json"
    file.write_text('{"Comment": "${Nobody}"}')
    with pytest.raises(ValueError, match="placeholder has no value"):
        changed("workflow", definition=str(file)).definition(ARNS)
    with pytest.raises(KeyError, match="millrace-telemetry-hot"):
        SOUND.definition({SOUND.transform.name: "arn"})


# The state machine


def followers(state: dict[str, Any]) -> set[str]:
    choices = [*state.get("Choices", []), *state.get("Catch", []), state]
    return {choice[key] for choice in choices for key in ("Next", "Default") if key in choice}


def test_its_stages():
    assert MACHINE["StartAt"] == "Transform"
    walk = ["Transform", "Any hot rows?", "Hot", "Settle", "Any rejects?", "Tell producers"]
    assert [*STATES] == [*walk, "Settled", "Transform did not run", "Transform died"]
    assert [*TASKS] == ["Transform", "Hot", "Settle", "Tell producers"]


def test_every_state_can_be_reached_and_every_way_ends():
    reached = {MACHINE["StartAt"]}
    while more := {name for at in reached for name in followers(STATES[at])} - reached:
        reached |= more
    assert reached == set(STATES)
    ends = {name for name, state in STATES.items() if not followers(state)}
    assert {STATES[name]["Type"] for name in ends} == {"Succeed", "Fail"}
    assert {name for name in ends if STATES[name]["Type"] == "Succeed"} == {"Settled"}


def test_every_way_to_success_goes_through_settle():
    """What the ledger does not know must not be answered as done."""
    before = {name for name, state in STATES.items() if "Settled" in followers(state)}
    assert before == {"Any rejects?", "Tell producers"}
    assert {n for n, state in STATES.items() if "Any rejects?" in followers(state)} == {"Settle"}
    assert {n for n, state in STATES.items() if "Tell producers" in followers(state)} == {
        "Any rejects?"
    }
    assert followers(STATES["Hot"]) == {"Settle"}
    assert followers(STATES["Any hot rows?"]) == {"Hot", "Settle"}


def test_every_task_has_a_timeout_and_the_sum_fits():
    timeouts = {name: task["TimeoutSeconds"] for name, task in TASKS.items()}
    assert all(isinstance(timeout, int) and timeout > 0 for timeout in timeouts.values())
    timeouts["Tell producers"] = SOUND.workflow.tell_seconds
    assert sum(timeouts.values()) <= MACHINE["TimeoutSeconds"]


def test_what_a_function_raised_is_never_retried_here():
    """A function's error is its own, or `States.*`: retrying it would feed what it died of."""
    for name in ("Transform", "Hot", "Settle"):
        task = TASKS[name]
        service = "DynamoDB." if name == "Settle" else "Lambda."
        for retrier in task["Retry"]:
            assert all(error.startswith(service) for error in retrier["ErrorEquals"])
            assert not any("Unknown" in error for error in retrier["ErrorEquals"])
            assert retrier["MaxAttempts"] <= 3
            assert retrier["JitterStrategy"] == "FULL"


def test_nothing_is_caught_but_the_ledgers_own_item_and_how_transform_ended():
    caught = [
        (name, catcher["ErrorEquals"], catcher["Next"])
        for name, state in STATES.items()
        for catcher in state.get("Catch", [])
    ]
    busy = STATES["Transform"]["Retry"][0]["ErrorEquals"]
    assert caught == [
        ("Transform", busy, "Transform did not run"),
        ("Transform", ["States.ALL"], "Transform died"),
        ("Settle", ["DynamoDB.ConditionalCheckFailedException"], "Any rejects?"),
        ("Tell producers", ["States.ALL"], "Settled"),
    ]
    assert STATES["Transform died"]["Error"] == TransformDied.__name__


def test_telling_producers_is_bounded_and_changes_nothing():
    """What is settled stays so: the shard waits a few seconds, and the answer is the same."""
    tell = TASKS["Tell producers"]
    (retrier,) = tell["Retry"]
    assert retrier["MaxAttempts"] == TELL_TRIES - 1
    assert retrier["IntervalSeconds"] * retrier["BackoffRate"] <= TELL_PAUSE_SECONDS
    assert SOUND.workflow.tell_seconds == 5
    assert tell["Output"] == "{% $states.input %}"
    assert tell["Catch"][0]["Output"].startswith("{% $merge([$states.input, {'not_told': ")
    assert f"'{feed.SOURCE}'" in tell["Arguments"]["Entries"]
    assert f"'{feed.DETAIL_TYPE}'" in tell["Arguments"]["Entries"]
    assert f"'{SOUND.bus.name}'" in tell["Arguments"]["Entries"]


@pytest.mark.parametrize(
    ("rejects", "left_ms", "told"),
    [(1, 15_000, True), (1, 14_999, False), (0, 60_000, False), (3, 60_000, True)],
)
def test_producers_are_told_while_whoever_waits_for_the_answer_still_does(
    *, rejects: int, left_ms: int, told: bool
):
    (choice,) = STATES["Any rejects?"]["Choices"]
    condition = Jsonata(choice["Condition"][3:-3])
    frame = condition.create_frame()
    state = {"transform": {"rejected": [{}] * rejects}, "deadline_ms": left_ms}
    context = {"State": {"EnteredTime": "1970-01-01T00:00:00.000Z"}}
    frame.bind("states", {"input": state, "context": context})
    assert condition.evaluate(None, frame) is told


def expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from expressions(inner)
    elif isinstance(value, str) and "{%" in value:
        assert value.startswith("{% ")
        assert value.endswith(" %}")
        yield value[3:-3]


def test_every_expression_is_jsonata_over_the_states_of_the_machine():
    assert MACHINE["QueryLanguage"] == "JSONata"
    found = [*expressions(MACHINE)]
    assert len(found) > 25
    for expression in found:
        Jsonata(expression)
        assert re.findall(r"\$states\.(\w+)", expression)
        assert set(re.findall(r"\$states\.(\w+)", expression)) <= {
            *("input", "result", "context", "errorOutput"),
        }


def test_every_state_passes_on_what_it_was_given():
    """`Output` replaces the state: one that forgot its input would lose the account."""
    for task in TASKS.values():
        assert "$states.input" in task["Output"]
    for name in ("Transform", "Hot"):
        assert "'account': $states.result.Payload.account" in TASKS[name]["Output"]
        assert TASKS[name]["Arguments"]["Payload"] == "{% $states.input %}"
    ways = (STATES["Settle"], *STATES["Settle"]["Catch"])
    assert {way["Output"] for way in ways} == {
        "{% $merge([$states.input, {'settled_at': $states.context.State.EnteredTime}]) %}"
    }
