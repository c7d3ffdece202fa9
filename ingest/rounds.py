"""Runs of the workflow on what is archived already: what replay and reprocess have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ingest import breaker
from ingest.process import account
from ingest.settings import Wiring
from sinks import landing, ledger
from sinks.deadline import Deadline
from sinks.errors import SinkError

ROUND_SECONDS = 170.0  # over the workflow's own timeout, so that its answer is not missed
TRIES_MAX = 3  # of one round: weather that lasts longer is for the operator
PAUSE_SECONDS = 2.0

Fate = Literal["delivered", "dropped", "quarantined", "retry"]


@dataclass(frozen=True)
class Round:
    """A part of a raw object to be run under an epoch: `received` records from `first` on.

    `rejects` says whether the breaker judges them.
    """

    stream: str
    raw_key: str
    archived: int
    first: int
    received: int
    epoch: int
    rejects: breaker.Rejects = "judge"


@dataclass(frozen=True)
class Ran:
    """The fate of each record of a round, in order, and who gave it."""

    raw_key: str
    epoch: int
    fates: list[Fate]
    contract: str = ""
    generation: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Rounds:
    """The pipeline's own workflow, called for records that no mapping delivers."""

    wiring: Wiring

    def run(self, what: Round) -> Ran:
        """Run it until nothing of it is handed back, a few times at most."""
        ran = self._once(what)
        for _ in range(TRIES_MAX - 1):
            if "retry" not in ran.fates or ran.reason == breaker.REASON:
                break
            self.wiring.waiting.sleep(PAUSE_SECONDS)
            ran = self._once(what)
        return ran

    def _once(self, what: Round) -> Ran:
        deadline = Deadline(self.wiring.clock() + ROUND_SECONDS, self.wiring.clock)
        state = {
            "pipeline": self.wiring.settings.pipeline,
            "stream": what.stream,
            "raw_key": what.raw_key,
            "archived": what.archived,
            "first": what.first,
            "received": what.received,
            "ledger_bucket": ledger.bucket_of(what.raw_key),
            "epoch": what.epoch,
            "rejects": what.rejects,
            "deadline_ms": int(deadline.at * 1000),
        }
        try:
            output = self.wiring.workflow.run(state, timeout_seconds=deadline.left)
            return self._told(what, output)
        except SinkError as error:
            return Ran(what.raw_key, what.epoch, ["retry"] * what.received, reason=error.reason)

    def _told(self, what: Round, output: dict[str, Any]) -> Ran:
        """Fates by record: the account has only counts, so the objects themselves are read."""
        outcome = account(output, what.received)
        done = output["transform"]
        quarantined = landing.indexes(self.wiring.bucket, done.get("quarantine_key", ""))
        landed = landing.indexes(self.wiring.bucket, done.get("landing_key", ""))
        back = {what.first + index for index in outcome.retry_indexes()}
        fates: list[Fate] = []
        for index in range(what.first, what.first + what.received):
            if index in back:
                fates.append("retry")
            elif index in quarantined:
                fates.append("quarantined")
            else:
                fates.append("delivered" if index in landed else "dropped")
        reason = output["account"]["reason"]
        return Ran(what.raw_key, what.epoch, fates, done["contract"], done["generation"], reason)
