"""Operators, who run Millrace's commands while all goes on: a command may die, and is run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from infra.doubles.mappings import Switch
from infra.simulation import contracts
from infra.simulation.known import Known, Violation
from infra.simulation.lambdas import Lambdas
from infra.simulation.scenario import HOUR_SECONDS, Mend
from ingest import breaker
from ingest.audit import Choice
from ingest.breaker import Accepted
from ingest.parking import Parking
from ingest.replay import replay
from ingest.reprocess import reprocess
from ingest.settings import EPOCH_SECONDS, Wiring
from ingest.sweep import sweep
from sinks import registry
from sinks.errors import SinkError
from sinks.lake.manifest import Raced
from transform.contract_file import ContractError

MICROS = 1_000_000
COMMANDS_MAX = 200  # each needs every call it makes; weather spares a long one seldom
REFUSED = (SinkError, ContractError, Raced)  # by the world, or as another one came between
PAUSE_SECONDS = 60.0
GRACE_SECONDS = 180.0 + EPOCH_SECONDS
"""As the command waits: ingest's timeout, and how long a process may not know of an epoch."""


@dataclass
class Operators:
    """`busy` counts commands that are not done; `swept` is how many rows the last sweep found due.

    `did` counts what they came to do.
    """

    lambdas: Lambdas
    known: Known
    started: float
    parking: Callable[[], Parking]
    switches: dict[str, Switch]
    mend: Mend
    busy: int = 0
    swept: int = 0
    did: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._scheduler = self.lambdas.scheduler

    def begin(self, work: Callable[[], None]) -> None:
        """Have somebody do it, beside all else."""
        self.busy += 1

        def whole() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001  nobody waits for it
                self._raised("operator", error)
            finally:
                self.busy -= 1

        self._scheduler.spawn(whole, "operator")

    def reprocess(self) -> None:
        """Everything, again and again until the command says that it is complete."""
        ends = round((self.started + HOUR_SECONDS) * MICROS)
        self._until(
            "reprocess",
            lambda wiring: self._reprocess(wiring, ends),
            lambda report: report.complete,
        )

    def _reprocess(self, wiring: Wiring, ends_micros: int) -> Any:
        """By the operator's own contract, even where a newer version was published."""
        if "versions" in self.lambdas.verbs:
            registry.use(wiring.bucket, contracts.NAME, 1)
        return reprocess(wiring, 0, ends_micros, GRACE_SECONDS)

    def replay(self, run: str, pause: float = 0.0) -> None:
        """What is set aside and parked, after a while, until nothing of it is handed back."""
        self._scheduler.sleep(pause)
        self._until(
            "replay",
            lambda wiring: replay(wiring, self.parking(), Choice(), run),
            lambda report: not report.retry,
        )

    def sweep(self, pause: float = 0.0) -> None:
        """One sweep, after a while; it may fail, and is run again another time."""
        self._scheduler.sleep(pause)
        report = self.once("sweep", sweep)
        self.swept = 0 if report is None else report.rows
        if self.swept:
            self.did.append("swept")

    def watch(self) -> None:
        """Resume what the breaker stopped: the rules are mended, or else the rejects accepted."""
        while True:
            self._scheduler.sleep(PAUSE_SECONDS)
            for switch in self.switches.values():
                if switch.enabled:
                    continue
                try:
                    self._resume(switch)
                except SinkError:
                    """The next look is in a minute."""

    def _resume(self, switch: Switch) -> None:
        wiring = self.lambdas.operators()
        pipeline, deployed = wiring.settings.pipeline, self.lambdas.deployed
        if self.mend == "contract" and deployed.version == 1:
            deployed.version = 2
        else:
            until = round((self._scheduler.now + HOUR_SECONDS) * MICROS)
            self.known.accepted.append(self._scheduler.now)
            breaker.accept(wiring.bucket, pipeline, Accepted(contracts.NAME, until))
        source = "sqs" if ":sqs:" in switch.source_arn else "kinesis"
        breaker.reset(wiring.bucket, pipeline, source)
        self.did.append("resumed")
        switch.turn(on=True)

    def _until(
        self, name: str, work: Callable[[Wiring], Any], complete: Callable[[Any], bool]
    ) -> None:
        for _ in range(COMMANDS_MAX):
            report = self.once(name, work)
            if report is not None and complete(report):
                self.did.append(name)
                return
            self._scheduler.sleep(PAUSE_SECONDS)
        self.known.violations.append(Violation(f"{name} does not end", str(report)))

    def once(self, name: str, work: Callable[[Wiring], Any]) -> Any:
        """The command's report, None where it died or the world refused."""
        wiring = self.lambdas.operators()
        task = self._scheduler.spawn(lambda: work(wiring), name, mortal=True)
        task.wait()
        if isinstance(task.error, Raced):
            self.did.append("raced")
        if task.error is not None and not isinstance(task.error, REFUSED):
            self._raised(name, task.error)
        return task.result

    def _raised(self, name: str, error: BaseException) -> None:
        self.lambdas.errors.append(f"{name}: {type(error).__name__}: {error}")
