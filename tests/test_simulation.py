"""The production code under seeded schedules of faults: nothing lost, nothing twice."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from infra.simulation.__main__ import main
from infra.simulation.contracts import CHOOSE, EXPLODE, FILTER, MARKER, SAMPLED
from infra.simulation.known import Violation
from infra.simulation.many import alone, many, told
from infra.simulation.run import Report, Simulation
from infra.simulation.scenario import EventKind, FaultKind, scenario
from infra.simulation.scheduler import Scheduler, StuckError
from infra.simulation.shrink import shrunk

SEEDS = 120
FAULTS = {*get_args(FaultKind), *get_args(EventKind)}
DONE = {
    *("tripped", "resumed", "unread", "canary", "parked", "fifo"),
    *("replay", "reprocess", "swept", "owed", "verified", "compacted", "raced"),
    *("read", "sealed", "sealed exactly", "retired"),
    *(f"dropped by {rule}" for rule in (FILTER, EXPLODE, CHOOSE, SAMPLED, MARKER)),
}
"""What guards, operators and rules came to do."""


@pytest.mark.timeout(300)
def test_every_record_has_one_fate_under_every_kind_of_fault():
    found = many(range(SEEDS))
    assert [told(report) for report in found.failing] == []
    assert {kind for kind in FAULTS | DONE if not found.faults[kind]} == set()


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_a_seed_gives_the_same_run_again(seed):
    first, second = (Simulation(scenario(seed)).run() for _ in range(2))
    assert first.digest == second.digest
    assert first.happened == second.happened
    assert first.digest != Simulation(scenario(seed + 1)).run().digest


def test_a_schedule_is_shrunk_to_what_it_takes():
    """Here one fault and one record make it fail, whatever else is in the schedule."""
    report = alone(scenario(1))
    needed = report.happened[len(report.happened) // 2]

    def run(tried):
        allowed = report.happened if tried.allowed is None else tried.allowed
        kept = tuple(name for name in report.happened if name in allowed)
        fails = needed in kept and tried.records
        wrong = (Violation("lost", "it"),) if fails else ()
        return Report(tried, wrong, kept, "", 0.0)

    small = shrunk(run(report.scenario), run)
    assert small.happened == (needed,)
    assert len(small.scenario.records) == 1
    assert small.scenario.events == ()


def test_a_fault_that_is_not_allowed_does_not_happen():
    full = alone(scenario(1))
    some = frozenset(full.happened[:3])
    assert set(alone(replace(full.scenario, allowed=some)).happened) <= some


def test_the_command_says_seeds_faults_and_violations(capsys):
    assert main(["--seeds", "3", "--first", "7", "--jobs", "1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("3 seeds; faults: ")
    assert last.endswith("; violations: 0")


def test_tasks_interleave_in_simulated_time():
    scheduler, said = Scheduler(0.0), []

    def work(name, seconds):
        for _ in range(2):
            scheduler.sleep(seconds)
            said.append((name, scheduler.now))

    for name, seconds in (("slow", 5.0), ("fast", 2.0)):
        scheduler.spawn(lambda name=name, seconds=seconds: work(name, seconds), name)
    scheduler.run(100.0)
    assert said == [("fast", 2.0), ("fast", 4.0), ("slow", 5.0), ("slow", 10.0)]


def test_a_killed_task_does_nothing_any_more_and_what_it_started_goes_on():
    scheduler, said = Scheduler(0.0), []

    def child():
        scheduler.sleep(5.0)
        said.append("child")

    def parent():
        task = scheduler.spawn(child, "child")
        try:
            task.wait()
        finally:
            scheduler.sleep(1.0)  # a dead process has no time left
            said.append("parent")

    task = scheduler.spawn(parent, "parent")
    scheduler.at(2.0, task.kill)
    scheduler.run(100.0)
    assert task.killed
    assert said == ["child"]


def test_a_task_that_gives_up_waiting_goes_on():
    scheduler, said = Scheduler(0.0), []

    def caller():
        other = scheduler.spawn(lambda: scheduler.sleep(10.0), "other")
        said.append((other.wait(3.0), scheduler.now))
        said.append((other.wait(), scheduler.now))

    scheduler.spawn(caller, "caller")
    scheduler.run(100.0)
    assert said == [(False, 3.0), (True, 10.0)]


def test_time_that_stands_still_is_told():
    scheduler = Scheduler(0.0)

    def again():
        scheduler.at(scheduler.now, again)

    again()
    with pytest.raises(StuckError):
        scheduler.run(1.0)
