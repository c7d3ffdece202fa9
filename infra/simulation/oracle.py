"""What must be, counted without the code under test.

It knows what producers sent and what Lambda received, reads what lies in the stores at the end, and
holds the two against each other. Of the production code it uses the exact reader, which is the
contract's definition, and Parquet's decoder.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.doubles.stepfunctions import Execution
from infra.simulation import contracts
from infra.simulation.sources import Position
from sinks import parquet
from transform.contract import HotLayout

MICROS = 1_000_000
EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
DIGEST_BYTES = 16
DONE = ("delivered", "dropped", "quarantined")
HUNT_SECONDS = 180.0  # one ingest
UNREAD = "unread"  # the generation of what was set aside without a look (law 8)
VERSION_UNIT = 10**9  # a generation's version begins with its contract's

Row = dict[str, Any]
Item = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold: `kind` is what shrinking must keep."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass
class Known:
    """What the oracle was told during a run (it is the sources' `Ears`)."""

    members: dict[Position, tuple[bytes, ...]] = field(default_factory=dict)
    bodies: dict[Position, bytes] = field(default_factory=dict)
    arrivals: dict[Position, int] = field(default_factory=dict)
    settled_positions: dict[Position, float] = field(default_factory=dict)
    parked_positions: set[Position] = field(default_factory=set)
    groups: dict[str, list[Position]] = field(default_factory=dict)  # of FIFO, in their order
    accepted: list[float] = field(default_factory=list)  # when an operator accepted rejects
    violations: list[Violation] = field(default_factory=list)
    now: Any = None

    def made(self, position: Position, body: bytes, members: Sequence[bytes]) -> None:
        self.members[position], self.bodies[position] = tuple(members), body

    def received(self, position: Position, body: bytes, arrival_micros: int) -> None:
        self.arrivals[position] = arrival_micros
        if self.bodies.get(position, body) != body:
            raise AssertionError(f"the source gave other bytes for {position}")

    def settled(self, position: Position) -> None:
        self.settled_positions.setdefault(position, self.now())

    def parked(self, position: Position, arrival_micros: int) -> None:
        self.arrivals.setdefault(position, arrival_micros)
        self.parked_positions.add(position)


@dataclass(frozen=True)
class Stores:
    """What lies in the account at the end; `gone` are objects that a lifecycle rule removed."""

    objects: Mapping[str, bytes]
    gone: Mapping[str, bytes]
    hot: Mapping[tuple[str, str], Item]
    ledger: Mapping[tuple[str, str], Item]
    succeeded: Sequence[str]
    executions: Sequence[Execution] = ()
    layout: HotLayout = "reading"


@dataclass(frozen=True)
class Chosen:
    """A position's one fate by law 5: its contract's version, and what of it is delivered."""

    version: int
    delivered: tuple[int, ...]
    set_aside: tuple[int, ...]


class Oracle:
    """The checks, over what was known and what is stored."""

    def __init__(self, known: Known, stores: Stores) -> None:
        self.known, self.stores = known, stores
        self.violations: list[Violation] = list(known.violations)
        everything = {**stores.gone, **stores.objects}
        self.tables = {
            key: parquet.decode(data).to_pylist()
            for key, data in everything.items()
            if key.startswith(("raw/", "landing/", "quarantine/"))
        }
        self.landing = self._rows("landing/")
        self.quarantine = self._rows("quarantine/")
        self.chosen: dict[Position, Chosen] = {}
        self.items: dict[tuple[str, str], Item] = {}

    def judge(self) -> list[Violation]:
        """Every violation of invariants 1 to 3 there is."""
        for key, row in self.landing:
            self._row(key, row, delivered=True)
        for key, row in self.quarantine:
            self._row(key, row, delivered=False)
        self._names()
        self._controls()
        self._choose()
        self._fates()
        self._hot()
        self._ledger()
        return self.violations

    def _rows(self, prefix: str) -> list[tuple[str, Row]]:
        tables = [(key, rows) for key, rows in self.tables.items() if key.startswith(prefix)]
        return [(key, row) for key, rows in tables for row in rows]

    def _wrong(self, kind: str, detail: object) -> None:
        self.violations.append(Violation(kind, str(detail)))

    # Laws 4 and 8: objects are named by their bytes, and no killer is set aside without a control

    def _names(self) -> None:
        for key, data in self.stores.objects.items():
            if not key.startswith(("raw/", "landing/", "quarantine/")):
                continue
            earliest = min(row["_arrival"] for row in self.tables[key])
            named = f"{earliest:%Y-%m-%d/%H}/{hashlib.sha256(data).hexdigest()}.parquet"
            if not key.endswith(named):
                self._wrong("an object not named by its bytes and arrival", key)

    def _controls(self) -> None:
        executions = self.stores.executions
        passed = [
            (e.input["raw_key"], e.started_at)
            for e in executions
            if e.status == "SUCCEEDED" and not e.input.get("unread")
            if e.input.get("canary") or any(e.output["account"][name] for name in DONE)
        ]
        for execution in executions:
            if not execution.input.get("unread"):
                continue
            key, until = execution.input["raw_key"], execution.started_at
            if not any(k == key and until - HUNT_SECONDS <= at <= until for k, at in passed):
                self._wrong("set aside without a control", execution.arn)

    # Invariant 1: every record received has one fate

    def _row(self, key: str, row: Row, *, delivered: bool) -> None:
        """A row is what its source record says under its own generation's rules."""
        position = position_of(row)
        members = self.known.members.get(position)
        if position not in self.known.arrivals or members is None:
            self._wrong("a row of nothing received", f"{position} in {key}")
            return
        raw = self.tables.get(row["_raw"], [])
        origin = raw[row["_index"]] if row["_index"] < len(raw) else {}
        if position_of(origin) != position or origin["_body"] != self.known.bodies[position]:
            self._wrong("a row without its origin", f"{position} in {key}")
        if row["_generation"] == UNREAD:
            if row["_body"] != self.known.bodies[position] or row["_elements"] != 1:
                self._wrong("a reject without its bytes", f"{position} in {key}")
            return
        if row["_sub"] >= len(members) or row["_elements"] != len(members):
            self._wrong("a row of no element", f"{position} {row['_sub']} in {key}")
            return
        body = members[row["_sub"]]
        arrival = self.known.arrivals[position]
        if micros(row["_arrival"]) != arrival:
            self._wrong("a row with another arrival", f"{position} in {key}")
        if row["_digest"] != digest(body):
            self._wrong("a row of other bytes", f"{position} in {key}")
        if not delivered and row["_body"] != body:
            self._wrong("a reject without its bytes", f"{position} in {key}")
        if contracts.good(body, arrival, row["_version"] // VERSION_UNIT) is not delivered:
            where = "landing" if delivered else "quarantine"
            self._wrong("a verdict that the rules do not give", f"{position} in {where}")

    def _choose(self) -> None:
        """Law 5, by hand: the whole before the rest, then epoch, delivered, version, digest."""
        found: dict[Position, dict[tuple[int, int, str], dict[int, bool]]] = {}
        for rows, good in ((self.landing, True), (self.quarantine, False)):
            for _, row in rows:
                named = (row["_epoch"], row["_version"], row["_generation"])
                elements = found.setdefault(position_of(row), {}).setdefault(named, {})
                elements[row["_sub"]] = good
        for position, generations in found.items():
            count = len(self.known.members.get(position, ()))
            candidates = [
                (len(elements) == (1 if named[2] == UNREAD else count), named, elements)
                for named, elements in generations.items()
            ]
            whole, (_, version, _), elements = max(candidates, key=_rank)
            if whole:
                self.chosen[position] = Chosen(
                    version // VERSION_UNIT,
                    tuple(sub for sub, good in elements.items() if good),
                    tuple(sub for sub, good in elements.items() if not good),
                )

    def _fates(self) -> None:
        for position in self.known.members:
            parked = position in self.known.parked_positions
            if position not in self.known.settled_positions and not parked:
                self._wrong("stuck", position)
            elif position not in self.chosen and not parked:
                self._wrong("lost", position)

    def elements(self, *, delivered: bool) -> set[tuple[Position, int]]:
        """What of every position is delivered, or set aside: by law 5, by hand."""
        return {
            (position, sub)
            for position, chosen in self.chosen.items()
            for sub in (chosen.delivered if delivered else chosen.set_aside)
        }

    def identities(self) -> set[bytes]:
        """What analysts count: each reading once. Here equal bytes have equal ids."""
        return {
            digest(self.known.members[position][sub])
            for position, sub in self.elements(delivered=True)
        }

    # Invariant 2: hot is what the records say

    def _hot(self) -> None:
        for position, chosen in self.chosen.items():
            for sub in chosen.delivered:
                made = self._item(position, sub, chosen.version)
                if made is not None:
                    self._wants(*made)
        for key in self.items.keys() - self.stores.hot.keys():
            self._wrong("hot lacks an item", key)
        for key in self.stores.hot.keys() - self.items.keys():
            self._wrong("hot holds what no record says", key)
        for key in self.stores.hot.keys() & self.items.keys():
            if self.stores.hot[key] != self.items[key]:
                self._wrong("hot holds another item", key)

    def _wants(self, key: tuple[str, str], item: Item) -> None:
        """An item of its own for the reading, or its device's one item, if there is no newer."""
        if self.stores.layout == "latest":
            place = {"S": key[1]}
            key = (item["device_id"]["S"], "latest")
            item = {**item, "pk": {"S": key[0]}, "sk": {"S": key[1]}, "_at": place}
            if key in self.items and self.items[key]["_at"]["S"] > place["S"]:
                return
        self.items[key] = item

    def _item(
        self, position: Position, sub: int, version: int
    ) -> tuple[tuple[str, str], Item] | None:
        """The hot item of an element by hand; None where it was too old when it arrived."""
        body = self.known.members[position][sub]
        message = json.loads(body)
        rules = contracts.contract(version)
        ttl = rules.hot_ttl_seconds or 0
        event_micros = message["ts"] * 1_000
        if self.known.arrivals[position] - event_micros >= ttl * MICROS:
            return None
        moment = EPOCH_START + timedelta(microseconds=event_micros)
        time = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
        pk, sk = f"{message['device_id']}#{time[:10]}", f"{time}#{digest(body).hex()}"
        item: Item = {
            "pk": {"S": pk},
            "sk": {"S": sk},
            "expires_at": {"N": str(event_micros // MICROS + ttl)},
            "device_id": {"S": message["device_id"]},
            "event_time": {"S": time},
            "sequence": {"N": str(message["seq"])},
            "temperature": {"N": repr(float(message["temperature"]))},
        }
        known = {"device_id", "ts", "seq", "temperature"}
        if any(f.name == "note" for f in rules.fields):
            known.add("note")
            if "note" in message:
                item["note"] = {"S": message["note"]}
        rescued = {key: value for key, value in message.items() if key not in known}
        if rescued:
            item["_rescued"] = {"S": json.dumps(rescued, separators=(",", ":"))}
        return (pk, sk), item

    # Invariant 3: the ledger agrees

    def _ledger(self) -> None:
        attempts = [item for item in self.stores.ledger.values() if "raw_key" in item]
        names = {item["sk"]["S"] for item in attempts}
        for execution in self.stores.succeeded:
            if execution not in names:
                self._wrong("an execution without its ledger item", execution)
        marks = {pk.removeprefix("paid#") for pk, _ in self.stores.ledger if pk.startswith("paid#")}
        swept = {pk.removeprefix("owed#") for pk, _ in self.stores.ledger if pk.startswith("owed#")}
        if unpaid := swept - marks:
            self._wrong("a debt without its mark", sorted(unpaid))
        done: set[Position] = set()
        for item in attempts:
            if owed := set(item["repair"]["S"].split()) - marks:
                self._wrong("a debt without its mark", sorted(owed))
            done |= self._attempt(item)
        for position in self.known.settled_positions:
            if position not in done:
                self._wrong("settled, but in no attempt of the ledger", position)

    def _attempt(self, item: Item) -> set[Position]:
        """Check an attempt's counts; the positions it is done with."""
        text = {name: value["S"] for name, value in item.items() if "S" in value}
        number = {name: int(value["N"]) for name, value in item.items() if "N" in value}
        raw = self.tables.get(text["raw_key"])
        if raw is None:
            self._wrong("an attempt at no raw object", text["raw_key"])
            return set()
        first, count = number["first"], number["received"]
        back = {i for low, high in json.loads(text["retry"]) for i in range(low, high)}
        if first + count > len(raw) or any(i >= count for i in back):
            self._wrong("an attempt beyond its raw object", text["sk"])
            return set()
        if len(back) == count:
            return set()
        rows = self.tables.get(text["landing_key"], [])
        rejects = self.tables.get(text["quarantine_key"], [])
        kept = {row["_index"] - first for row in rejects} - back
        elements = Counter(row["_index"] - first for row in (*rows, *rejects))
        counted = {
            "landing_rows": len(rows),
            "quarantine_rows": len(rejects),
            "quarantined": len(kept),
            "dropped": 0,
            "delivered": len(elements.keys() - kept - back),
        }
        for row in (*rows, *rejects):
            told = (text["generation"], text["raw_key"])
            if row["_generation"] != UNREAD and (row["_generation"], row["_raw"]) != told:
                self._wrong("an attempt that names another's rows", text["sk"])
                break
        for name, value in counted.items():
            if number[name] != value:
                wrong = f"{name} {number[name]}, not {value}: {text['sk']}"
                self._wrong("the ledger miscounts", wrong)
        if number["delivered"] + number["quarantined"] + number["dropped"] + len(back) != count:
            self._wrong("the ledger does not add up", text["sk"])
        if not back and number["hot_written"] + number["repair_rows"] != number["hot_rows"]:
            self._wrong("the ledger miscounts", f"hot rows: {text['sk']}")
        return {position_of(raw[first + i]) for i in range(count) if i not in back}


def _rank(candidate: tuple[bool, tuple[int, int, str], dict[int, bool]]) -> tuple[Any, ...]:
    whole, (epoch, version, name), elements = candidate
    return (whole, epoch, all(elements.values()), version, name)


def position_of(row: Row) -> Position:
    return (row.get("_stream", ""), row.get("_shard", ""), row.get("_sequence", ""))


def digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def micros(moment: datetime) -> int:
    return (moment - EPOCH_START) // timedelta(microseconds=1)


def by_kind(violations: Iterable[Violation]) -> dict[str, list[str]]:
    """What was found, by what it is."""
    found: dict[str, list[str]] = defaultdict(list)
    for violation in violations:
        found[violation.kind].append(violation.detail)
    return found
