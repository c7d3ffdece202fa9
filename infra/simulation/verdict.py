"""What a run has shown: every violation there is at its end, and what guards and operators did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from infra.simulation.account import Account
from infra.simulation.guards import overtaken, set_aside_by_the_world
from infra.simulation.known import Violation
from infra.simulation.lake import Lake
from infra.simulation.operators import Operators
from infra.simulation.oracle import Oracle
from infra.simulation.proof import compared, proven
from infra.simulation.seals import Seals
from infra.simulation.told import Told

ALLOWED = ("NoSuchKey", "NothingDone: Transform died")
"""What a function may raise: an object has gone; Transform died, and the mapping is to bisect."""
VERIFIED_EVERY = 20  # seeds: to verify takes longer than all else
POISON_SECONDS = 3 * 180.0 + 5.0
"""Three of ingest's timeouts, a window and a poll: so long may bad data delay what is behind it."""


@dataclass(frozen=True)
class Verdict:
    """An account whose world is calm again, and the oracle that counted beside it."""

    account: Account
    operators: Operators
    oracle: Oracle
    lake: Lake
    seals: Seals

    def violations(self) -> Iterator[Violation]:
        """Everything that contradicts an invariant."""
        account = self.account
        yield from self.oracle.judge()
        yield from self._delays()
        yield from self._defects()
        yield from self._debts()
        yield from self._told()
        yield from overtaken(account.known)
        executions, limits = account.machines.executions, account.lambdas.breaker
        tables = self.oracle.tables
        yield from set_aside_by_the_world(account.known, executions, tables, limits)
        yield from self._left()
        if account.scenario.has_lake:
            yield from self.lake.judge(self.oracle)
            self.seals.look()
            yield from self.seals.violations
        if not account.scenario.seed % VERIFIED_EVERY and not account.expired:
            yield from self._proof()

    def did(self) -> Iterator[str]:
        """What guards, operators and the contract's rules came to do."""
        yield from self.operators.did
        yield from self.lake.did
        yield from self.seals.did
        for execution in self.account.machines.executions:
            if execution.status == "SUCCEEDED":
                done = execution.output
                yield from (name for name in ("unread", "canary") if done.get(name))
                yield from ["tripped"] * ("breaker" in done["transform"])
                yield from ["owed"] * bool(done.get("hot", {}).get("repair"))
        yield from ["parked"] * len(self.account.known.parked_positions)
        yield from sorted({f"dropped by {row['_rule']}" for _, row in self.oracle.dropped})
        yield from ["fifo"] * bool(self.account.known.groups)

    def _delays(self) -> list[Violation]:
        """Bad data alone holds nothing up (invariant 4)."""
        if self.account.weather.happened or self.account.scenario.profile not in {"calm", "poison"}:
            return []
        return [
            Violation("delayed by poison", f"{position}: {at - arrival / 1e6:.0f} s")
            for position, at in self.account.known.settled_positions.items()
            if (arrival := self.account.known.arrivals[position])
            and at - arrival / 1e6 > POISON_SECONDS
        ]

    def _debts(self) -> list[Violation]:
        """Once the world is calm, every debt is paid."""
        return [
            Violation("a debt is not paid", message.body)
            for message in self.account.repair.queue.messages
        ]

    def _told(self) -> list[Violation]:
        """Whatever becomes of the feed, what it says is so (and outcomes are the oracle's)."""
        bad = any(name.startswith("events.") for name in self.account.weather.happened)
        bad |= "events" in self.account.weather.outages
        entries = self.account.events.buses[self.account.topology.bus.name]
        told = Told(entries, self.oracle.quarantine, self.account.machines.executions, bad)
        return list(told.judge())

    def _defects(self) -> list[Violation]:
        """What a function raised: nothing ever should, but where an object has gone."""
        return [
            Violation("a function raised", error)
            for error in self.account.lambdas.errors
            if not any(allowed in error for allowed in ALLOWED)
        ]

    def _left(self) -> Iterator[Violation]:
        """Where budgets are small, a replay at the end gives all that is parked a fate."""
        if self.account.scenario.budget:
            for position in self.account.known.parked_positions - self.oracle.chosen.keys():
                yield Violation("parked for ever", str(position))

    def _proof(self) -> Iterator[Violation]:
        """What `verify` says of the account, held against the oracle."""
        self.operators.did.append("verified")
        return compared(proven(self.account), self.oracle)
