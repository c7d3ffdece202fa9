"""An SQS mapping: batches, answers, concurrency, over-pull, redrive, FIFO. Rules name a source."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.esm.answers import Result, Undocumented
from infra.esm.events import Message, Place, message
from infra.esm.plugin import EsmFactory
from infra.esm.queue import Delete, Drop, Invoke, QueueMachine, QueueRules
from infra.esm.simulate import Faults
from infra.esm.simulated_queue import SimulatedQueue
from tests.support import SOME

ESM = EsmFactory()
PLACE = Place("arn:aws:sqs:us-east-1:123456789012:q", "f", "us-east-1", "r")
SUCCESS = Result("answered", b"{}")
ERROR = Result("failed", b"", "Unhandled")
THROTTLE = Result("refused")


def messages(*numbers: int, body: str = "{}") -> list[Message]:
    return [
        message(
            {
                "MessageId": f"id-{n}",
                "ReceiptHandle": f"handle-{n}",
                "MD5OfBody": "0",
                "Body": body,
            },
            PLACE,
        )
        for n in numbers
    ]


def numbers_of(command: Any) -> list[int]:
    return [int(one.identifier.removeprefix("id-")) for one in command.messages]


def answer(*identifiers: str) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": one} for one in identifiers]}


def hand_back(*bodies: str) -> Any:
    """A handler that hands back the messages with these bodies."""

    def handler(event: Any, _: Any) -> Any:
        return answer(*(r["messageId"] for r in event["Records"] if r["body"] in bodies))

    return handler


# ---- Batches ----


def test_a_batch_is_cut_by_count_and_the_rest_waits_for_the_window():
    """aws.md 1.3 [B]: BatchSize and MaximumBatchingWindowInSeconds."""
    machine = QueueMachine(QueueRules(batch_size=11, window_seconds=5, maximum_concurrency=2))
    assert machine.ask(0.0) == 10
    machine.received(messages(*range(10)), 0.0)
    assert machine.take(0.0) == []
    assert machine.ask(0.0) == 1
    machine.received(messages(10), 1.0)
    (full,) = machine.take(1.0)
    assert numbers_of(full) == list(range(11))
    machine.received(messages(11), 2.0)
    assert machine.take(6.9) == []
    assert machine.wake(6.9) == 7.0
    (waited,) = machine.take(7.0)
    assert numbers_of(waited) == [11]
    assert machine.ask(7.0) == 0  # both invocations it may have are under way


def test_a_batch_is_cut_by_bytes_and_the_rest_is_not_forgotten():
    """aws.md 1.3 [B]: 6 MB; what was received more than fits is invisible to all others."""
    machine = QueueMachine(QueueRules(window_seconds=300))
    machine.received(messages(*range(5), body='"' * 1_000_000), 0.0)
    (first,) = machine.take(0.0)
    assert numbers_of(first) == [0, 1, 2]
    assert machine.ask(0.0) == 8
    (rest,) = machine.take(0.0, flush=True)
    assert numbers_of(rest) == [3, 4]


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": 10_001, "window_seconds": 1},
        {"batch_size": 11},
        {"batch_size": 11, "fifo": True},
        {"window_seconds": 1, "fifo": True},
        {"window_seconds": 301},
        {"maximum_concurrency": 1},
        {"maximum_concurrency": 1_001},
        {"visibility_seconds": 2, "timeout_seconds": 3},
    ],
)
def test_what_aws_refuses_is_refused(wrong):
    """aws.md 0.7, 1.3 [B], 3.2 [D, A]: ranges, FIFO without window, visibility over timeout."""
    with pytest.raises(ValueError, match="SQS mapping"):
        QueueRules(**wrong)


@pytest.mark.parametrize(
    ("window", "timeout", "visibility", "invisible"),
    [(0, 3, 30, 30), (27, 3, 30, 30), (28, 3, 30, 61), (300, 30, 30, 360)],
)
def test_visibility_outlasts_window_and_timeout(window, timeout, visibility, invisible):
    """aws.md 3.2 [A]: if they are longer, it is their sum and 30 s."""
    rules = QueueRules(
        window_seconds=window, timeout_seconds=timeout, visibility_seconds=visibility
    )
    assert rules.invisible_seconds == invisible


# ---- Answers ----


def test_what_is_not_named_is_deleted_and_the_rest_comes_back_by_itself():
    """aws.md 3.2 [A]."""
    result = ESM.sqs(hand_back("b"), ["a", "b", "c"], max_receive_count=3).run()
    assert result.batches == [["message-1", "message-2", "message-3"], *[["message-2"]] * 2]
    assert result.delivered == ("message-1", "message-3")
    assert result.dead_letters == ("message-2",)


@pytest.mark.parametrize("failure", [ERROR, Result("answered", b'{"batchItemFailures": [{}]}')])
def test_a_failure_deletes_nothing(failure):
    """aws.md 3.2 [A, D]: exception or malformed answer is complete failure."""
    machine = QueueMachine(QueueRules())
    machine.received(messages(1, 2), 0.0)
    (invoke,) = machine.take(0.0)
    assert isinstance(invoke, Invoke)
    machine.result(invoke.batch, failure, 0.0)
    assert machine.take(0.0) == []
    assert machine.idle


def test_a_handler_can_ask_for_a_message_at_once():
    """aws.md 3.2: ChangeMessageVisibility to 0, then list it as failed."""
    calls: list[float] = []

    def handler(event: Any, _: Any) -> Any:
        (one,) = event["Records"]
        calls.append(esm.timeline.now)
        if len(calls) > 1:
            return None
        esm.at(0.2, lambda: esm.queue.change_visibility(one["receiptHandle"], 0, calls[0]))
        return answer(one["messageId"])

    esm = ESM.sqs(handler, ["a"], visibility=600)
    assert esm.run().delivered == ("message-1",)
    assert calls[1] - calls[0] < 1


# ---- Concurrency ----


def test_concurrency_starts_at_five_and_grows_by_300_a_minute():
    """aws.md 0.7 [D]: to 1,250; MaximumConcurrency is below that."""
    machine = QueueMachine(QueueRules())
    assert [machine.slots(s) for s in (0, 1, 60, 120, 249, 3_600)] == [5, 10, 305, 605, 1250, 1250]
    limited = QueueMachine(QueueRules(maximum_concurrency=7))
    assert [limited.slots(s) for s in (0, 1, 60)] == [5, 7, 7]


def test_maximum_concurrency_is_never_exceeded_and_pulls_nothing_it_cannot_invoke():
    """aws.md 0.7, pitfalls 6: the receive counts of a backlog stay at one."""
    result = ESM.sqs(lambda *_: None, ["x"] * 500, maximum_concurrency=3, seconds=2.0).run()
    assert result.peak == 3
    assert result.delivered == result.sent
    assert result.dropped == 0
    assert len(result.invocations) == 50


def test_reports_keep_concurrency_up_and_errors_without_them_shrink_it():
    """aws.md 3.2 [D]; by how much is not documented."""
    slots = {}
    for reports in (True, False):
        machine = QueueMachine(QueueRules(reports=reports))
        machine.received(messages(1), 60.0)
        (invoke,) = machine.take(60.0)
        assert isinstance(invoke, Invoke)
        machine.result(invoke.batch, ERROR, 60.0)
        slots[reports] = machine.slots(60.0)
    assert slots[True] == 305
    assert slots[False] < 305


def test_a_throttled_batch_is_tried_until_its_messages_are_visible_again():
    """aws.md 3.2 [D]: then it is dropped, and the queue gives it out again."""
    machine = QueueMachine(QueueRules(visibility_seconds=30))
    machine.received(messages(1), 0.0)
    now, tries = 0.0, 0
    while True:
        (command,) = machine.take(now)
        if isinstance(command, Drop):
            break
        assert isinstance(command, Invoke)
        machine.result(command.batch, THROTTLE, now)
        tries += 1
        now = machine.wake(now) or 0.0
    assert (now, tries) == (30.0, 30)
    assert machine.idle


def test_over_pull_parks_messages_that_nobody_has_read():
    """aws.md 3.2, pitfalls 6: reserved concurrency under what the mapping may ask for."""
    settings: dict[str, Any] = {"visibility": 6, "seconds": 3.0, "timeout": 6, "batch_size": 1}
    pulled = ESM.sqs(
        lambda *_: None,
        ["x"] * 200,
        reserved_concurrency=1,
        max_receive_count=2,
        **settings,
    ).run()
    assert pulled.unread
    assert pulled.dropped > 0
    limited = ESM.sqs(
        lambda *_: None,
        ["x"] * 200,
        reserved_concurrency=2,
        maximum_concurrency=2,
        max_receive_count=2,
        **settings,
    ).run()
    assert limited.delivered == limited.sent
    assert not limited.dead_letters


# ---- Redrive ----


@pytest.mark.parametrize("most", [1, 5])
def test_a_message_moves_when_its_receives_are_spent(most):
    """aws.md 3.2: the dead-letter queue is on the queue; throttles and errors count alike."""
    result = ESM.sqs(hand_back("bad"), ["bad"], max_receive_count=most).run()
    assert len(result.invocations) == most
    assert result.dead_letters == ("message-1",)


def test_a_lost_answer_brings_messages_again_whose_work_is_done():
    """At least once: the handler ran twice, the message was deleted once."""
    result = ESM.sqs(lambda *_: None, ["a"], faults=Faults(script=("lost",))).run()
    assert [invocation.took_place for invocation in result.invocations] == [True, True]
    assert result.delivered == ("message-1",)


def test_what_a_queue_keeps_no_longer_is_lost():
    """Without redrive, a message that always fails ends with the queue's retention."""
    result = ESM.sqs(hand_back("bad"), ["bad", "good"], retention=3_600).run()
    assert result.lost == ("message-1",)
    assert result.delivered == ("message-2",)


# ---- FIFO ----


def first_failed_and_all_behind(*bad: str) -> Any:
    """A handler as AWS wants it for FIFO: it stops at the first failure of a group."""

    def handler(event: Any, _: Any) -> Any:
        blocked: set[str] = set()
        named = []
        for one in event["Records"]:
            group = one["attributes"]["MessageGroupId"]
            if one["body"] in bad or group in blocked:
                blocked.add(group)
                named.append(one["messageId"])
        return answer(*named)

    return handler


def test_a_failed_group_blocks_until_its_visibility_is_over_and_others_go_on():
    """aws.md 3.2; pitfalls 23: a batch can hold several groups."""
    bodies = [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")]
    esm = ESM.sqs(first_failed_and_all_behind("1"), bodies, fifo=True, max_receive_count=2)
    esm.send("5", "a", at=1)
    esm.send("6", "b", at=1)
    result = esm.run()
    assert result.batches[0] == ["message-1", "message-2", "message-3", "message-4"]
    assert result.batches[1] == ["message-6"]
    assert result.invocations[2].at >= 30
    assert result.dead_letters == ("message-1", "message-3")
    assert result.delivered == ("message-2", "message-4", "message-5", "message-6")
    assert not result.overtaken


def test_a_handler_that_names_only_the_failed_lets_its_group_overtake():
    """aws.md 3.2 [A]: return the first failure and all that is unprocessed; the fixture tells."""
    result = ESM.sqs(hand_back("1"), ["1", "2"], fifo=True, max_receive_count=2).run()
    assert result.overtaken == ("message-1",)


def test_concurrency_is_no_more_than_groups():
    """aws.md 3.2: concurrency <= active message groups."""
    bodies = [(f"group-{n % 3}", "x") for n in range(60)]
    result = ESM.sqs(lambda *_: None, bodies, fifo=True, batch_size=1, seconds=1.0).run()
    assert result.peak == 3
    assert result.delivered == result.sent


LARGE = "x" * 1_000_000  # six of them fill a payload


def grouped(groups: str) -> list[Message]:
    """Large messages of these groups, in order."""
    made = messages(*range(len(groups)), body=LARGE)
    return [replace(one, group=group) for one, group in zip(made, groups, strict=True)]


def fifo_machine(groups: str) -> QueueMachine:
    machine = QueueMachine(QueueRules(fifo=True, maximum_concurrency=2))
    machine.received(grouped(groups), now=0)
    return machine


def test_a_fifo_group_cut_by_the_payload_limit_is_not_in_two_invocations_at_once():
    machine = fifo_machine("aaaaaaaa")
    (first,) = machine.take(0)
    assert numbers_of(first) == [0, 1, 2, 3, 4, 5]
    assert (machine.take(0), machine.wake(0)) == ([], None)
    machine.result(first.batch, SUCCESS, 1)
    deleted, second = sorted(machine.take(1), key=lambda one: isinstance(one, Invoke))
    assert isinstance(deleted, Delete)
    assert numbers_of(second) == [6, 7]


def test_other_groups_need_not_wait_for_it():
    assert [numbers_of(one) for one in fifo_machine("aaaaaabb").take(0)] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7],
    ]


@pytest.mark.parametrize(
    "result",
    [ERROR, Result("answered", json.dumps(answer("id-5")).encode())],
    ids=["error", "partial"],
)
def test_what_is_behind_a_fifo_message_that_comes_again_is_let_go(result: Result):
    machine = fifo_machine("bbbbbaaa")
    (first,) = machine.take(0)
    machine.result(first.batch, result, 1)
    assert not any(isinstance(command, Invoke) for command in machine.take(1))
    assert machine.idle


def test_a_fifo_message_has_a_group():
    with pytest.raises(ValueError, match="message group"):
        SimulatedQueue(fifo=True).send("x", 0.0)


# ---- Whatever happens ----

probability = st.sampled_from([0.0, 0.05, 0.3])


@SOME
@given(
    st.integers(0, 2**32),
    st.builds(Faults, probability, probability, probability, probability, probability),
    st.sampled_from(list(Undocumented.every())),
    st.fixed_dictionaries(
        {
            "batch_size": st.integers(1, 10),
            "maximum_concurrency": st.sampled_from([None, 2, 4]),
            "reserved_concurrency": st.sampled_from([None, 1, 3]),
            "max_receive_count": st.sampled_from([1, 3, 10]),
            "fifo": st.booleans(),
            "seconds": st.sampled_from([0.1, 2.0]),
        }
    ),
)
def test_no_message_is_lost_and_no_group_is_overtaken(seed, faults, settled, rules):
    """Each message ends deleted after its work, or in the dead-letter queue; never neither."""
    took: set[str] = set()
    calls = [0]

    def handler(event: Any, _: Any) -> Any:
        calls[0] += 1
        names = [one["messageId"] for one in event["Records"]]
        done = names[: (seed + calls[0]) % (len(names) + 1)] if calls[0] % 2 else names
        took.update(done)
        return json.loads(json.dumps(answer(*(name for name in names if name not in done))))

    bodies = [(f"group-{n % 5}", "x") for n in range(40)]
    esm = ESM.sqs(handler, bodies, faults=faults, undocumented=settled, seed=seed, **rules)
    result = esm.run()
    assert set(result.delivered) <= took
    assert sorted((*result.delivered, *result.dead_letters)) == sorted(result.sent)
    assert not result.lost
    assert not result.pending
    assert not result.overtaken
    if rules["maximum_concurrency"]:
        assert result.peak <= rules["maximum_concurrency"]


def test_deletes_are_told_once():
    machine = QueueMachine(QueueRules())
    machine.received(messages(1, 2), 0.0)
    (invoke,) = machine.take(0.0)
    assert isinstance(invoke, Invoke)
    machine.result(invoke.batch, SUCCESS, 0.0)
    assert machine.wake(0.0) == 0.0
    (delete,) = machine.take(0.0)
    assert isinstance(delete, Delete)
    assert numbers_of(delete) == [1, 2]
    assert machine.take(0.0) == []
    assert machine.idle
