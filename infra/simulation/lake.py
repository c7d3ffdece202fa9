"""The lake of a run: compacted and read while all goes on, and counted by hand.

Law 5 over all objects is the oracle's own (`Oracle.standing`). Its rows are what the named reader
must say at any moment, and what the lake's files must hold once everything is taken in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from infra.simulation import contracts
from infra.simulation.account import Account
from infra.simulation.known import Row, Standing, Stores, Violation, micros
from infra.simulation.operators import PAUSE_SECONDS, Operators
from infra.simulation.oracle import Oracle
from ingest.settings import Wiring
from sinks import parquet
from sinks.bucket import Bucket
from sinks.lake import reader, work
from sinks.lake.compact import Compacted
from sinks.lake.retire import Retired, retire
from sinks.lake.work import Choice
from sinks.lake.workspace import Limits, workspace

MANIFEST = f"lake/{contracts.NAME}/manifest.json"
SOURCES = ("landing/", "quarantine/", "dropped/")
COMPACTIONS_MAX = 2
KILLED = 0.4
WRITES = 12  # of two commits, about
MICROS = 1_000_000
HOUR_MICROS = 3_600 * MICROS
ONE_THREAD = Limits(fetchers=1)  # effects are seen in tasks alone
WORD_BYTES = 8


class Lake:
    """The lake of an account. `violations` are what readers found, `did` how often they could."""

    def __init__(self, account: Account, operators: Operators) -> None:
        self.account, self.operators = account, operators
        self.violations: list[Violation] = []
        self.did: list[str] = []
        self._compactions = 0

    def compact_all(self, rows_max: int, pause: float) -> None:
        """Take in all there is, when all is calm and a while later, so many rows at a time."""
        self.account.scheduler.sleep(pause)
        self.compact(rows_max, killed=0.0)

    def compact(self, rows_max: int, killed: float = KILLED) -> None:
        """Take in what there is, so many rows at a time.

        A compaction may fail or die, and is run again; then the next one on the schedule does it.
        """
        choice = Choice(rows_max, orphans=True, limits=ONE_THREAD)

        def command(wiring: Wiring) -> list[Compacted]:
            bucket = self.account.patient(self._death(killed))
            table = wiring.ledger_table
            return list(work.run(bucket, table, wiring.contract, choice, wiring.clock))

        for _ in range(COMPACTIONS_MAX):
            if self.operators.once("compact", command):
                self.did.append("compacted")
                return
            self.account.scheduler.sleep(PAUSE_SECONDS)

    def _death(self, killed: float) -> int:
        """At which of its writes a compaction dies; most live, or come to their end before."""
        self._compactions += 1
        weather = self.account.weather
        if weather.chance("killed", self._compactions) >= killed:
            return 0
        return 1 + int(WRITES * weather.chance("killed at", self._compactions))

    def retire(self, pause: float) -> None:
        """Delete what nobody can need any more, after a while; somebody remembers what landed."""
        self.account.scheduler.sleep(pause)
        before = self.account.objects()

        def command(wiring: Wiring) -> Retired:
            now = datetime.fromtimestamp(wiring.clock(), UTC)
            return retire(self.account.patient(), contracts.NAME, now)

        done = self.operators.once("retire", command)
        left = self._sources()
        gone = {key for key in before if key.startswith(SOURCES) and key not in left}
        self.account.retired |= {key: before[key] for key in gone}
        self.did += ["retired"] * bool(gone)
        if done is None or done.landing != len(gone):
            self.violations.append(Violation("retired otherwise than told", f"{done} {gone}"))

    def read(self) -> None:
        """Read as an analyst does, beside all else; where the world refuses, when it is calm.

        What it must say is known where nothing landed meanwhile.
        """
        account = self.account
        before = self._sources()
        told = self.operators.once("read", lambda _: self._told(account.patient()))
        if told is None:
            before, told = self._sources(), self._told(account.calm())
        if before == self._sources():
            self.did.append("read")
            stores = Stores(self.account.objects(), account.gone, {}, {}, ())
            wanted = Oracle(account.known, stores).standing()
            self.violations += _differ("a reader says otherwise", told, wanted)

    def judge(self, oracle: Oracle) -> Iterator[Violation]:
        """What is wrong with a lake that has taken in everything there is, and with its readers."""
        yield from self.violations
        lake = Held.of(self.account.objects())
        landed = {key for key in oracle.tables if key.startswith(SOURCES)}
        if landed != lake.absorbed:
            yield Violation("the lake has not taken in all", str(sorted(landed ^ lake.absorbed)))
        wanted = oracle.standing()
        rows = [row for rows in lake.hours.values() for row in rows]
        yield from _differ("the lake holds other rows", map(Standing.of, rows), wanted)
        yield from _changed(rows, [row for _, row in oracle.landing])
        yield from _differ("a reader says otherwise", self._told(self.account.calm()), wanted)
        yield from lake.judge()

    def _told(self, bucket: Bucket) -> list[Standing]:
        """What the named reader says."""
        deployed = self.account.lambdas.deployed
        contract = contracts.contract(deployed.version, self.account.scenario.verbs)
        with workspace(bucket, ONE_THREAD) as space:
            found = reader.snapshot(space, contract)
        rows = found.tail.to_pylist()
        for file in found.files:
            rows += parquet.decode(bucket.get(file.key)).to_pylist()
        return [Standing.of(row) for row in rows]

    def _sources(self) -> set[str]:
        """Which of the objects are there that a lake is made of."""
        return {key for key in self.account.objects() if key.startswith(SOURCES)}


@dataclass(frozen=True)
class Held:
    """A lake as its objects are: the manifest that counts, and rows by event hour."""

    manifest: Mapping[str, Any]
    hours: Mapping[int, list[Row]]
    absorbed: frozenset[str]

    @classmethod
    def of(cls, objects: Mapping[str, bytes]) -> Held:
        if MANIFEST not in objects:
            return cls({"partitions": []}, {}, frozenset())
        root = msgspec.json.decode(objects[MANIFEST])
        manifest = msgspec.json.decode(objects[root["manifest"]])
        hours = {
            part["hour"]: _rows(objects, [file["key"] for file in part["files"]])
            for part in manifest["partitions"]
        }
        lists = _rows(objects, [one["key"] for one in manifest["absorbed"]])
        return cls(manifest, hours, frozenset(row["key"] for row in lists))

    def judge(self) -> Iterator[Violation]:
        """Whether partitions are what the manifest says of them."""
        for part in self.manifest["partitions"]:
            rows = self.hours[part["hour"]]
            if any(micros(row["event_time"]) // HOUR_MICROS != part["hour"] for row in rows):
                yield Violation("a row in another hour", str(part["hour"]))
            told = {name: part[name] for name in ("rows", "ids", "conflicts", "digest")}
            if told != (counted := _counted(rows)):
                yield Violation("a partition miscounts", f"{told}, not {counted}")


def _rows(objects: Mapping[str, bytes], keys: Iterable[str]) -> list[Row]:
    return [row for key in keys for row in parquet.decode(objects[key]).to_pylist()]


def _counted(rows: Iterable[Row]) -> dict[str, Any]:
    """What a manifest says of some rows, by hand."""
    digests: dict[str, list[bytes]] = defaultdict(list)
    for row in rows:
        digests[row["_record_id"]].append(row["_digest"])
    words = [
        int.from_bytes(digest[at : at + WORD_BYTES], "little")
        for own in digests.values()
        for digest in own
        for at in range(0, len(digest), WORD_BYTES)
    ]
    return {
        "rows": sum(map(len, digests.values())),
        "ids": len(digests),
        "conflicts": sum(len(set(own)) > 1 for own in digests.values()),
        "digest": f"{sum(words) % 2**64:016x}",
    }


def _changed(rows: Iterable[Row], landed: Iterable[Row]) -> Iterator[Violation]:
    """Rows that are not, column by column, as one of them landed."""
    known = {_whole(row) for row in landed}
    for row in rows:
        if _whole(row) not in known:
            yield Violation("a row of the lake never landed", str(row))


def _whole(row: Row) -> tuple[tuple[str, Any], ...]:
    """All that a row says: files have columns of other versions, null in it."""
    return tuple(sorted((name, value) for name, value in row.items() if value is not None))


def _differ(kind: str, told: Iterable[Standing], wanted: list[Standing]) -> Iterator[Violation]:
    """Rows that are there and should not be, or the other way; each is there once."""
    found = sorted(told)
    if found != wanted:
        odd = set(found) ^ set(wanted)
        yield Violation(kind, f"{len(found)} rows for {len(wanted)}; {sorted(odd)[:2] or 'twice'}")
