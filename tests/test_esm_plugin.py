"""The fixture `millrace_esm`, as any Lambda author would use it, and the simulated sources."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from infra.esm import plugin
from infra.esm.answers import Undocumented
from infra.esm.simulate import Faults
from infra.esm.simulated_stream import SimulatedStream
from ingest import kinesis, sqs
from transform.records import Outcome

ROOT = Path(__file__).parent.parent
millrace_esm = plugin.millrace_esm  # as the entry point would bring it, were Millrace installed


def poison_free(event: Any, _: Any) -> None:
    for record in event["Records"]:
        if record["kinesis"]["data"] == "cG9pc29u":  # poison
            raise ValueError("poison")


def test_a_poison_record_is_set_aside_with_its_payload(millrace_esm):
    """aws.md 1.3 [B, A, D]: S3 gets the metadata and the whole invocation record."""
    records = [b"good", b"poison", b"good"]
    esm = millrace_esm.kinesis(
        poison_free, records=records, batch_size=100, bisect=True, retries=3, on_failure="s3"
    )
    result = esm.run()
    assert result.sent == ("8", "9", "10")
    assert result.parked == ("9",)
    assert result.delivered == ("8", "10")
    assert result.checkpoint == "10"
    assert not result.lost
    (document,) = result.on_failure
    assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert document["requestContext"]["approximateInvokeCount"] == 6  # two splits, a try, 3 retries
    assert document["responseContext"]["functionError"] == "Unhandled"
    assert document["KinesisBatchInfo"] == {
        "shardId": "shardId-000000000000",
        "startSequenceNumber": "9",
        "endSequenceNumber": "9",
        "approximateArrivalOfFirstRecord": "2026-11-24T12:00:00.000Z",
        "approximateArrivalOfLastRecord": "2026-11-24T12:00:00.000Z",
        "batchSize": 1,
        "streamArn": "arn:aws:kinesis:us-east-1:123456789012:stream/stream",
    }
    assert kinesis.read(json.loads(document["payload"])).bodies == [b"poison"]


@pytest.mark.parametrize("destination", ["sqs", "sns"])
def test_queues_and_topics_get_no_payload(millrace_esm, destination):
    """aws.md 1.3 [B, A, D], pitfalls 5: metadata only."""
    esm = millrace_esm.kinesis(poison_free, [b"poison"], retries=0, on_failure=destination)
    (document,) = esm.run().on_failure
    assert "payload" not in document


def test_without_a_destination_what_is_discarded_is_lost(millrace_esm):
    """aws.md 3.1 [D]: it is discarded, and processing goes on."""
    result = millrace_esm.kinesis(poison_free, [b"poison", b"good"], batch_size=1, retries=2).run()
    assert result.lost == ("8",)
    assert result.delivered == ("9",)


def test_the_defaults_block_a_shard_until_all_behind_the_poison_has_expired(millrace_esm):
    """aws.md 3.1 [D], pitfalls 2: 24 hours of retention, and what follows is lost with it."""
    esm = millrace_esm.kinesis(poison_free, [b"poison"] + [b"good"] * 5)
    for hour in range(1, 48):
        esm.put("key", b"good", at=3_600 * hour)
    result = esm.run()
    assert len(result.lost) > 5
    assert len(result.lost) + len(result.delivered) == len(result.sent)


def test_a_handler_that_swallows_its_errors_is_found_out(millrace_esm):
    """aws.md trap 11: an empty answer acknowledges everything."""
    done: list[str] = []

    def swallowing(event: Any, _: Any) -> Any:
        done.extend(r["messageId"] for r in event["Records"] if r["body"] != "bad")
        return {}

    result = millrace_esm.sqs(swallowing, ["good", "bad"]).run()
    assert set(result.delivered) - set(done) == {"message-2"}


def test_a_handler_that_compares_numbers_as_text_is_found_out(millrace_esm):
    """aws.md 3.1: sequence numbers begin with 8 here, so that "10" is soon under "9"."""
    failed = {"9", "10"}
    done: set[str] = set()

    def as_text(event: Any, _: Any) -> Any:
        numbers = [r["kinesis"]["sequenceNumber"] for r in event["Records"]]
        bad = failed.intersection(numbers)
        done.update(set(numbers) - bad)
        failed.clear()
        return {"batchItemFailures": [{"itemIdentifier": min(bad)}] if bad else []}

    result = millrace_esm.kinesis(as_text, [b"a", b"b", b"c"]).run()
    assert set(result.delivered) - done == {"9"}


def test_the_same_seed_gives_the_same_run(millrace_esm):
    faults = Faults(throttle=0.2, error=0.2, timeout=0.1, lost=0.1, slow=0.1)

    def run(seed: int) -> list[tuple[float, str, tuple[str, ...]]]:
        esm = millrace_esm.kinesis(
            lambda *_: None, [b"x"] * 50, batch_size=3, faults=faults, seed=seed
        )
        return [(i.at, i.fault, i.identifiers) for i in esm.run().invocations]

    assert run(7) == run(7)
    assert run(7) != run(8)
    assert {fault for _, fault, _ in run(7)} >= {"", "throttle", "error"}


@pytest.mark.parametrize(
    ("fault", "ran", "kind", "seconds"),
    [
        ("throttle", 1, "refused", 0.0),
        ("error", 1, "failure", 0.1),
        ("timeout", 1, "failure", 3.0),
        ("lost", 2, "failure", 3.0),
        ("slow", 1, "success", 2.7),
    ],
)
def test_what_each_fault_does(millrace_esm, fault, ran, kind, seconds):
    calls: list[Any] = []
    esm = millrace_esm.kinesis(
        lambda event, _: calls.append(event), [b"x"], faults=Faults(script=(fault,))
    )
    result = esm.run()
    assert len(calls) == ran
    assert result.invocations[0].meaning.kind == kind
    assert result.invocations[0].seconds == pytest.approx(seconds)
    assert result.delivered == ("8",)


def test_a_handler_gets_a_context_and_an_event_as_lambda_sends_them(millrace_esm):
    seen: dict[str, Any] = {}

    def handler(event: Any, context: Any) -> None:
        seen.update(event=event, left=context.get_remaining_time_in_millis())
        assert context.aws_request_id
        assert context.invoked_function_arn.endswith(context.function_name)

    millrace_esm.kinesis(handler, [("device", {"a": 1})], timeout=30).run()
    delivery = kinesis.read(seen["event"])
    assert (delivery.groups, delivery.bodies) == (["device"], [b'{"a": 1}'])
    assert seen["left"] == 30_000
    millrace_esm.sqs(handler, [("tenant", "text")]).run()
    delivery = sqs.read(seen["event"])
    assert (delivery.groups, delivery.bodies) == (["tenant"], [b"text"])


def test_an_answer_that_is_no_json_is_an_error(millrace_esm):
    result = millrace_esm.kinesis(lambda *_: {1, 2}, [b"x"], retries=0, on_failure="s3").run()
    assert result.parked == ("8",)
    assert "not JSON serializable" in result.invocations[0].meaning.reason


def test_a_destination_that_does_not_exist_is_refused(millrace_esm):
    with pytest.raises(ValueError, match="on_failure is one of"):
        millrace_esm.kinesis(poison_free, on_failure="s4")


# ---- Millrace's ingest, behind both mappings ----


@pytest.mark.parametrize("source", ["kinesis", "sqs", "fifo"])
def test_ingests_answers_lose_nothing_under_anything_undocumented(millrace_esm, source):
    """Weather hands back some records twice over; each is taken in the end, whatever AWS does."""
    for settled in Undocumented.every():
        stored: set[str] = set()
        calls = [0]
        module = kinesis if source == "kinesis" else sqs

        def handler(event: Any, _: Any) -> Any:
            delivery = module.read(event)  # noqa: B023  used up within the loop
            calls[0] += 1  # noqa: B023
            count = len(delivery.sequences)
            weather = calls[0] <= 4  # noqa: B023
            retry = [n for n in range(count) if weather and (n + calls[0]) % 3 == 0]  # noqa: B023
            stored.update(  # noqa: B023
                s for n, s in enumerate(delivery.sequences) if n not in retry
            )
            spans = tuple((n, n + 1) for n in retry)
            return module.respond(  # noqa: B023
                delivery, Outcome(count, count - len(spans), 0, 0, spans)
            )

        faults = Faults(script=("", "lost", "", "throttle", "error", ""))
        if source == "kinesis":
            esm = millrace_esm.kinesis(
                handler,
                [(f"k{n}", b"x") for n in range(10)],
                bisect=True,
                max_age=518_400,
                retention=604_800,
                on_failure="s3",
                faults=faults,
                undocumented=settled,
            )
        else:
            esm = millrace_esm.sqs(
                handler,
                [(f"g{n % 2}", "x") for n in range(10)],
                fifo=source == "fifo",
                max_receive_count=20,
                faults=faults,
                undocumented=settled,
            )
            esm.queue.fifo = source == "fifo"
        result = esm.run()
        assert set(result.delivered) == set(result.sent) == stored


# ---- How it ships ----


def test_the_entry_point_names_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module = import_module(project["entry-points"]["pytest11"]["millrace"])
    assert module.millrace_esm


def test_it_works_as_a_plugin_of_another_project(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "def test_mine(millrace_esm):\n"
        "    result = millrace_esm.sqs(lambda *_: None, ['a', 'b']).run()\n"
        "    assert len(result.delivered) == 2\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "infra.esm.plugin", str(tmp_path)]
    # By name, and not by the entry point as well where Millrace happens to be installed.
    environment = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


# ---- The simulated stream ----


def test_a_key_goes_where_its_md5_belongs_also_after_splits_and_merges():
    """aws.md 1.1 [B]: a partition key's MD5 is its 128-bit hash key."""
    stream = SimulatedStream(2)
    left, right = stream.shards
    assert stream.put("a", b"", 0.0) in stream.shards[left].records  # MD5 0cc1...
    assert stream.put("b", b"", 0.0) in stream.shards[right].records  # MD5 92eb...
    low, high = stream.split(left)
    assert stream.put("a", b"", 1.0) in stream.shards[low].records
    merged = stream.merge(high, right)
    assert stream.shards[merged].parents == (high, right)
    assert stream.put("b", b"", 2.0) in stream.shards[merged].records
    with pytest.raises(ValueError, match="no open neighbours"):
        stream.merge(low, left)


def test_a_stream_keeps_what_it_must_and_tells_where_a_shard_ends():
    stream = SimulatedStream(1, retention_seconds=100)
    (shard,) = stream.shards
    first, second = stream.put("a", b"", 0.0), stream.put("a", b"", 50.0)
    assert stream.read(shard, 0, 10, 60.0) == ([first, second], False)
    assert stream.read(shard, 0, 1, 60.0) == ([first], False)
    assert stream.read(shard, 0, 10, 100.0) == ([second], False)
    stream.split(shard)
    assert stream.read(shard, first.sequence, 10, 60.0) == ([second], True)
    assert stream.read(shard, 0, 10, 1_000.0) == ([], True)
