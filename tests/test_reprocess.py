"""Reprocess: a range of arrivals again under a greater epoch, and the hot table put right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ingest import reprocess as module
from ingest.process import process
from ingest.reprocess import Report, preview, reprocess
from ingest.settings import EPOCH_SECONDS
from ingest.workflow import ExecutionFailed
from sinks import control, registry
from tests.edge import HOT, STREAM, WIDER, Crash, Edge, rules
from tests.support import NOON, SECOND, Cloud, Context, delivery, reading
from transform.contract_file import ContractError, load_contract

HOUR = 3_600 * SECOND
ANONYMOUS = ('record_id = ["device_id", "event_time", "sequence"]', "")
BY_FIRMWARE = ('device = "device_id"', 'device = "firmware"')
OTHER_TIME = ('path = "ts"', 'path = "taken"')


def again(edge: Edge, low: int = NOON, high: int = NOON + HOUR, **more: Any) -> Report:
    return reprocess(edge.wiring, low, high, **more)


def moments(account: Cloud) -> list[str]:
    return sorted(sk.partition("#")[0][11:19] for _, sk in account.items())


def moved(seq: int, hour: int = 11) -> bytes:
    """A reading whose two clocks differ."""
    return reading(seq=seq, taken=(NOON - (12 - hour) * HOUR) // 1_000)


def test_what_was_rejected_is_delivered_under_the_new_epoch(edge: Edge, tmp_path) -> None:
    edge.ingest([reading(seq=1), reading(seq=2, **HOT), b"no"])
    edge.deploy(rules(tmp_path, WIDER))
    report = again(edge)
    assert report.complete
    assert (report.epoch, report.positions, report.changed) == (1, 3, 1)
    assert report.before == {"delivered": 1, "dropped": 0, "quarantined": 2}
    assert report.after == {"delivered": 2, "dropped": 0, "quarantined": 1}
    assert edge.delivered().column("_epoch").to_pylist() == [1, 1]
    assert report.hot_keys_removed == 0
    assert len(edge.account.items()) == 2


def test_a_changed_key_leaves_no_stale_item(edge: Edge, tmp_path) -> None:
    edge.ingest([moved(1), moved(2)])
    assert moments(edge.account) == ["12:00:00"] * 2
    edge.deploy(rules(tmp_path, OTHER_TIME))
    report = again(edge)
    assert (report.hot_keys_removed, report.hot_keys_left, report.changed) == (2, 0, 2)
    assert moments(edge.account) == ["11:00:00"] * 2


def test_a_changed_identity_changes_keys_and_none_is_left(edge: Edge, tmp_path) -> None:
    edge.ingest([reading(seq=1), reading(seq=2)])
    edge.deploy(rules(tmp_path, ANONYMOUS))
    assert again(edge).hot_keys_removed == 2
    assert [sk.count("#") for _, sk in edge.account.items()] == [2, 2]


def test_what_is_rejected_now_leaves_the_hot_table(edge: Edge, tmp_path) -> None:
    edge.ingest([reading(seq=1), reading(seq=2, fw="1")])
    edge.deploy(rules(tmp_path, BY_FIRMWARE))
    report = again(edge)
    assert report.after == {"delivered": 1, "dropped": 0, "quarantined": 1}
    assert report.hot_keys_removed == 2
    assert [pk.partition("#")[0] for pk, _ in edge.account.items()] == ["1"]


def test_an_item_that_a_repeat_out_of_the_range_still_wants_is_kept(edge: Edge, tmp_path) -> None:
    edge.ingest([moved(1), moved(2)])
    edge.ingest([moved(1)], NOON + 2 * HOUR, first=500)
    edge.deploy(rules(tmp_path, OTHER_TIME))
    assert again(edge).hot_keys_removed == 1
    assert moments(edge.account) == ["11:00:00", "11:00:00", "12:00:00"]


def test_of_a_raw_object_only_the_records_in_the_range_run(edge: Edge, tmp_path) -> None:
    bodies = [reading(seq=n, **HOT) for n in range(4)]
    came = delivery(bodies, NOON, STREAM)
    arrivals = [NOON - 1, NOON, NOON + HOUR - 1, NOON + HOUR]
    process(replace(came, arrivals=arrivals), edge.wiring, Context())
    edge.deploy(rules(tmp_path, WIDER))
    assert again(edge).positions == 2
    assert edge.inputs[-1]["first"] == 1
    assert sorted(edge.delivered().column("_sequence").to_pylist()) == ["101", "102"]
    assert len(edge.open()) == 2


def test_a_dry_run_counts_and_writes_nothing(edge: Edge, tmp_path) -> None:
    edge.ingest([reading(seq=1), reading(seq=2, **HOT)])
    before = edge.account.keys()
    edge.deploy(rules(tmp_path, WIDER))
    report = preview(edge.wiring, NOON, NOON + HOUR)
    assert (report.before["delivered"], report.after["delivered"], report.changed) == (1, 2, 1)
    assert edge.account.keys() == before
    assert len(edge.inputs) == 1


def test_the_same_rules_change_nothing(edge: Edge) -> None:
    edge.ingest([reading(seq=1), b"no"])
    items = edge.account.items()
    report = again(edge)
    assert (report.changed, report.hot_keys_removed) == (0, 0)
    assert edge.account.items() == items
    assert again(edge).epoch == 2  # once done, the same command is another reprocess


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_in_the_middle_is_gone_on_with(
    edge: Edge, tmp_path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    for part in range(3):
        edge.ingest([moved(part)], NOON + part, first=100 * (part + 1))
    edge.deploy(rules(tmp_path, OTHER_TIME))
    real: Callable[..., dict[str, Any]] = edge.workflow.run
    runs: list[str] = []

    def crashing(state: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        runs.append(state["raw_key"])
        crash = len(runs) == 2
        if crash and when == "before":
            raise Crash
        output = real(state, timeout_seconds)
        if crash:
            raise Crash
        return output

    monkeypatch.setattr(edge.workflow, "run", crashing)
    with pytest.raises(Crash):
        again(edge)
    assert moments(edge.account).count("12:00:00") == 3  # nothing is deleted before the end
    report = again(edge)
    assert (report.epoch, report.skipped_rounds, report.rounds) == (1, 1, 2)
    assert report.complete
    assert (report.changed, report.hot_keys_removed) == (3, 3)
    assert moments(edge.account) == ["11:00:00"] * 3
    assert control.reprocessed(edge.account.bucket)[0].done


def test_weather_deletes_nothing_and_the_same_command_goes_on(
    edge: Edge, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.ingest([moved(1)])
    edge.deploy(rules(tmp_path, OTHER_TIME))

    def failing(*_: Any, **__: Any) -> dict[str, Any]:
        raise ExecutionFailed("FAILED")

    with monkeypatch.context() as patch:
        patch.setattr(edge.workflow, "run", failing)
        report = again(edge)
    assert (report.complete, report.handed_back, report.hot_keys_removed) == (False, 1, 0)
    assert moments(edge.account) == ["12:00:00"]
    assert again(edge).epoch == 1
    assert moments(edge.account) == ["11:00:00"]


def test_rules_that_reject_nearly_everything_are_handed_back_by_the_breaker(
    edge: Edge, tmp_path
) -> None:
    came = delivery([reading(f"s-{n}") for n in range(200)], NOON, STREAM)
    keyed = replace(came, groups=[f"s-{n}" for n in range(200)])
    process(keyed, edge.wiring, Context())
    edge.deploy(rules(tmp_path, BY_FIRMWARE))
    report = again(edge)
    assert (report.complete, report.handed_back, report.hot_keys_removed) == (False, 200, 0)
    assert report.problems[0].endswith(": breaker")
    assert len(edge.account.items()) == 200


def test_a_zombie_of_the_older_epoch_is_found_in_the_grace(edge: Edge, tmp_path) -> None:
    """It began under the epoch before, and lands when the first pass is over."""
    edge.ingest([moved(1)])
    edge.deploy(rules(tmp_path, OTHER_TIME))
    old = Edge(edge.account, edge.clock, edge.inputs)
    asleep = edge.wiring.waiting.sleep

    def meanwhile(seconds: float) -> None:
        old.ingest([moved(1), moved(2)])  # the first for the second time, as a retry would be
        asleep(seconds)

    old.wiring.epoch()
    edge.wiring.waiting = type(edge.wiring.waiting)(meanwhile, edge.wiring.waiting.uniform)
    report = again(edge, grace_seconds=210.0)
    assert edge.delivered().column("_epoch").to_pylist() == [1, 1]
    assert report.positions == 2
    assert moments(edge.account) == ["11:00:00"] * 2


def test_a_zombie_that_comes_later_still_does_not_count(edge: Edge, tmp_path) -> None:
    edge.ingest([moved(1)])
    edge.deploy(rules(tmp_path, OTHER_TIME))
    old = Edge(edge.account, edge.clock, edge.inputs)
    assert old.wiring.epoch() == 0
    again(edge)
    old.ingest([moved(1)])
    assert edge.delivered().column("_epoch").to_pylist() == [1]


def test_new_traffic_runs_under_the_new_epoch(edge: Edge, tmp_path) -> None:
    edge.ingest([reading(seq=1)])
    edge.deploy(rules(tmp_path, WIDER))
    again(edge)
    edge.clock.now += EPOCH_SECONDS
    edge.ingest([reading(seq=2)], NOON + 2 * HOUR, first=300)
    assert edge.inputs[-1]["epoch"] == 1
    assert edge.delivered().column("_epoch").to_pylist() == [1, 1]


def test_a_large_raw_object_runs_in_parts(
    edge: Edge, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROUND_RECORDS", 2)
    edge.ingest([reading(seq=n, **HOT) for n in range(5)])
    edge.deploy(rules(tmp_path, WIDER))
    report = again(edge)
    assert (report.rounds, report.after["delivered"]) == (3, 5)


def test_old_contracts_are_found_by_what_they_made(edge: Edge, tmp_path) -> None:
    """Three versions in a row: each landing object's keys are of its own contract."""
    edge.ingest([moved(1)])
    edge.deploy(rules(tmp_path, OTHER_TIME))
    edge.ingest([moved(2)], NOON + 1, first=200)
    assert moments(edge.account) == ["11:00:00", "12:00:00"]
    folder = tmp_path / "third"
    folder.mkdir()
    edge.deploy(rules(folder, ("version = 2", "version = 3"), ANONYMOUS))
    assert again(edge).hot_keys_removed == 2
    assert [sk.count("#") for _, sk in edge.account.items()] == [2, 2]
    assert moments(edge.account) == ["12:00:00"] * 2


def test_a_contract_older_than_the_one_in_use_is_refused_and_nothing_begun(edge: Edge, tmp_path):
    edge.ingest([reading(seq=1)])
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, changes in ((old, ()), (new, (("version = 2", "version = 3"),))):
        folder.mkdir()
        file = rules(folder, *changes)
        registry.publish(edge.account.bucket, load_contract(file))
    edge.deploy(str(old / "telemetry.toml"))
    for run in (preview, reprocess):
        with pytest.raises(ContractError, match=r"version 3 is the current one.* use telemetry 2`"):
            run(edge.wiring, NOON, NOON + HOUR)
    assert edge.wiring.epoch() == 0
    registry.use(edge.account.bucket, "telemetry", 2)
    edge.deploy(str(old / "telemetry.toml"))
    assert again(edge).complete
    assert [made // 10**9 for made in edge.delivered().column("_version").to_pylist()] == [2]
