"""A scenario to its end, and the violations found."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from infra.esm.simulate import EPOCH
from infra.simulation.account import Account
from infra.simulation.drawn import Made
from infra.simulation.known import Violation
from infra.simulation.lake import Lake
from infra.simulation.operators import Operators
from infra.simulation.oracle import Oracle
from infra.simulation.scenario import Event, Scenario
from infra.simulation.scheduler import StuckError
from infra.simulation.seals import Seals
from infra.simulation.verdict import Verdict
from infra.simulation.watermarks import EVERY_SECONDS, LOOKS, Watch
from infra.simulation.weather import EVEN
from ingest import log, telemetry
from ingest.sweep import KEPT_DAYS, QUIET_SECONDS
from sinks import control
from sinks.lake import retire

QUIET = QUIET_SECONDS + 1_000.0
"""Until a sweep looks at everything, by a clock that may be late."""
QUIET_ORPHANS = 20 * 60.0 + 1_000.0
"""Until a compaction takes in what no attempt told of, by such a clock."""
ROWS_MAX = 7  # of a landing in which there are some dozens: a compaction comes to several commits
KEPT = (KEPT_DAYS + 1) * 86_400.0
SWEEPS_MAX = 5
LANDED = retire.LANDED.total_seconds()
AGAIN = 0.3
JUDGED_AGAIN = {"weather", "crashes", "deploy", "reprocess", "outage", "calm"}
DRAIN_SECONDS = 24 * 3_600.0
"""After the last fault: a message may be invisible for 18 minutes some twenty times."""


@dataclass(frozen=True)
class Report:
    """What one run came to. Equal digests are equal runs."""

    scenario: Scenario
    violations: tuple[Violation, ...]
    happened: tuple[str, ...]
    digest: str
    seconds: float
    did: tuple[str, ...] = ()

    def faults(self) -> Counter[str]:
        """Faults by kind; events count as they came."""
        counted = Counter(name.partition(" ")[2] for name in self.happened)
        counted.update(event.kind for event in self.scenario.events)
        counted.update(self.did)
        return counted


class Simulation:
    """An account, and what happens to it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.account = account = Account(scenario)
        self.scheduler = account.scheduler
        self.operators = Operators(
            account.lambdas,
            account.known,
            EPOCH,
            account.parking,
            account.mappings.switches,
            scenario.mend,
        )
        self.lake = Lake(account, self.operators)
        self.seals = Seals(account, self.operators)
        self.oracle: Oracle | None = None
        self.watch = Watch(account)

    def run(self) -> Report:
        for made in self.scenario.records:
            self.scheduler.at(EPOCH + made.at, lambda made=made: self._put(made))  # type: ignore[misc]
        for event in self.scenario.events:
            self.scheduler.at(EPOCH + event.at, lambda event=event: self._event(event))  # type: ignore[misc]
        for number in range(1, LOOKS + 1):
            self.scheduler.at(EPOCH + number * EVERY_SECONDS, self.watch.look)
        until = EPOCH + self.scenario.calm_at + DRAIN_SECONDS
        violations: list[Violation] = []
        if self.scenario.profile == "breaker":
            self.scheduler.spawn(self.operators.watch, "operator")
        with silence():
            try:
                self.scheduler.run(until, self._idle)
                self._clear_up()
            except StuckError as stuck:
                violations.append(Violation("time stands still", str(stuck)))
        self.oracle = Oracle(self.account.known, self.account.stores())
        verdict = Verdict(self.account, self.operators, self.oracle, self.lake, self.seals)
        violations += verdict.violations()
        violations += self.watch.violations
        return Report(
            self.scenario,
            tuple(violations),
            tuple(self.account.weather.happened),
            self.account.weather.trace.hexdigest(),
            self.scheduler.now - EPOCH,
            tuple(verdict.did()),
        )

    def _clear_up(self) -> None:
        """Once all is calm: what is parked is replayed, and sweeps come until nothing is due.

        The last of them when no source can bring a record again.
        """
        parked = self.account.known.parked_positions
        if self.scenario.budget and parked:
            self.account.lambdas.deployed.version = 2
            self._operate(lambda: self.operators.replay("last", QUIET))  # letters are shown again
        for pause in (QUIET, KEPT) if parked else (QUIET,):
            for _ in range(SWEEPS_MAX):
                self._operate(partial(self.operators.sweep, pause))
                if not self.operators.swept:
                    break
        if self.scenario.has_lake:
            self._take_in()

    def _take_in(self) -> None:
        """Everything becomes part of the lake, by one compaction or two at once.

        Then, of half of them, so much time passes that what landed is not needed; of some runs all
        is reprocessed afterwards, with no more than the lake has.
        """
        chance, profile = self.account.weather.chance, self.scenario.profile
        if chance("two at once") < EVEN:
            self.operators.begin(lambda: self.lake.compact_all(ROWS_MAX, QUIET_ORPHANS + 1.0))
        self._operate(lambda: self.lake.compact_all(ROWS_MAX, QUIET_ORPHANS))
        self._operate(self.seals.seal)
        if chance("retire") < EVEN:
            return
        self._operate(lambda: self.lake.retire(LANDED + 1_000.0))
        if profile in JUDGED_AGAIN and chance("again") < AGAIN:
            self.account.lambdas.deployed.version = 1 if chance("by") < EVEN else 2
            self._operate(self.operators.reprocess)
            self._operate(lambda: self.lake.compact_all(ROWS_MAX, QUIET_ORPHANS))

    def _operate(self, work: Callable[[], None]) -> None:
        self.operators.begin(work)
        self.scheduler.run(self.scheduler.now + KEPT + DRAIN_SECONDS, self._idle)

    def _idle(self) -> bool:
        return (
            not self.operators.busy
            and self.scheduler.now > EPOCH + self.scenario.calm_at + 300.0
            and len(self.account.known.members) == len(self.scenario.records)
            and self.account.drained
        )

    def _put(self, made: Made) -> None:
        if made.source == "kinesis":
            # The oracle must know before the mapping does.
            record = self.account.stream.put(made.key, made.body)
        else:
            record = self.account.queue.put(made.body, made.key)
            if self.scenario.fifo:
                self.account.known.groups.setdefault(made.key, []).append(record)
        self.account.known.made(record, made)

    def _event(self, event: Event) -> None:  # noqa: C901  one case for each
        self.account.weather.note(f"event {event}")
        now = self.scheduler.now
        match event.kind:
            case "contract" | "hot contract" | "code" | "publish" | "use":
                self._deploy(event)
            case "reprocess" | "replay" | "sweep":
                self._command(event)
            case "compact":
                self.operators.begin(partial(self.lake.compact, int(event.value)))
            case "seal":
                self.operators.begin(self.seals.seal)
            case "read":
                self.operators.begin(self.lake.read)
            case "split" | "merge":
                self._reshard(event.kind)
            case "restart":
                self.account.stream.restart()
                self.account.queue.restart()
                self.account.repair.restart()
            case "outage":
                self.account.weather.outages[event.value] = now + event.seconds
            case "clock":
                self.account.lambdas.skew += float(event.value)
            case "expire":
                self.account.expire()
            case "broken":
                self.account.lambdas.broken_until = now + event.seconds
            case "hot key":
                self.account.weather.hot_keys[event.value] = now + event.seconds

    def _deploy(self, event: Event) -> None:
        lambdas = self.account.lambdas
        match event.kind:
            case "contract":
                lambdas.deployed.version = int(event.value)
            case "hot contract":
                lambdas.hot_deployed.version = lambdas.deployed.version
            case "code":
                lambdas.deployed.code = int(event.value)
            case "publish":
                self.account.publish(int(event.value))
            case "use":
                self.account.use(int(event.value))

    def _command(self, event: Event) -> None:
        """An operator's command, by other rules than before where it has some."""
        self.account.lambdas.deployed.version = int(
            event.value or self.account.lambdas.deployed.version
        )
        work: dict[str, Callable[[], None]] = {
            "reprocess": self.operators.reprocess,
            "replay": lambda: self.operators.replay(f"at {event.at:.0f}"),
            "sweep": self.operators.sweep,
        }
        self.operators.begin(work[event.kind])

    def _reshard(self, kind: str) -> None:
        stream = self.account.stream.stream
        whole = [s for s in stream.shards.values() if not s.closed]
        whole.sort(key=lambda shard: shard.low)
        if kind == "split":
            stream.split(whole[0].name)
        elif len(whole) > 1:
            stream.merge(whole[0].name, whole[1].name)
        self.account.stream.turn()


class _Keys:
    """Keys, each another one, and in every run the same."""

    def __init__(self) -> None:
        self._made = 0

    def token_hex(self, size: int) -> str:
        self._made += 1
        return f"{self._made:0{2 * size}x}"


@contextmanager
def silence() -> Iterator[None]:
    """No log lines, no metrics and no chance: a run has hundreds of Deliveries."""
    write, flush = log.write, telemetry.flush
    vars(log)["write"] = vars(telemetry)["flush"] = lambda _: None
    vars(control)["secrets"] = _Keys()
    try:
        yield
    finally:
        vars(log)["write"], vars(telemetry)["flush"] = write, flush
        vars(control)["secrets"] = secrets
