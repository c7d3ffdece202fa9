"""What must be, counted without the code under test.

It knows what producers sent and what Lambda received, reads what lies in the stores at the end, and
holds the two against each other. What a message comes to it knows by itself (`messages`); of the
production code it uses Parquet's decoder alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from typing import Any

from infra.simulation import contracts
from infra.simulation.books import Books
from infra.simulation.known import (
    UNREAD,
    Chosen,
    Item,
    Known,
    Row,
    Standing,
    Stores,
    Violation,
    digest,
    micros,
    place_of,
    position_of,
    worst,
)
from infra.simulation.messages import MICROS, Element, Fate, Place
from infra.simulation.sources import Position
from sinks import parquet

WORST_FIRST = ("quarantined", "dropped", "delivered")  # as law 5 prefers one whole record's fates
PREFIXES = ("raw/", "landing/", "quarantine/", "dropped/")
DONE: tuple[Fate, ...] = ("delivered", "dropped", "quarantined")
HUNT_SECONDS = 180.0  # one ingest
HASH_KEY = "control/hash-key.json"
HASH_HEX_DIGITS = 32


class Oracle:
    """The checks, over what was known and what is stored."""

    def __init__(self, known: Known, stores: Stores) -> None:
        self.known, self.stores = known, stores
        self.violations: list[Violation] = list(known.violations)
        everything = {**stores.gone, **stores.objects}
        self.tables = {
            key: parquet.decode(data).to_pylist()
            for key, data in everything.items()
            if key.startswith(PREFIXES)
        }
        self.landing = self._rows("landing/")
        self.quarantine = self._rows("quarantine/")
        self.dropped = self._rows("dropped/")
        self.digests: dict[bytes, bytes] = {}  # of what makes a row what it is
        self.chosen: dict[Position, Chosen] = {}
        self.items: dict[tuple[str, str], Item] = {}

    def judge(self) -> list[Violation]:
        """Every violation of invariants 1 to 3 there is."""
        for fate, rows in self._by_fate():
            for key, row in rows:
                self._row(key, row, fate)
        self._tell_apart()
        self._names()
        self._controls()
        self._choose()
        self._fates()
        self._hot()
        books = Books(self.known, self.stores, self.tables)
        return [*self.violations, *books.judge()]

    def _rows(self, prefix: str) -> list[tuple[str, Row]]:
        tables = [(key, rows) for key, rows in self.tables.items() if key.startswith(prefix)]
        return [(key, row) for key, rows in tables for row in rows]

    def _by_fate(self) -> tuple[tuple[Fate, list[tuple[str, Row]]], ...]:
        return (
            ("delivered", self.landing),
            ("quarantined", self.quarantine),
            ("dropped", self.dropped),
        )

    def _wrong(self, kind: str, detail: object) -> None:
        self.violations.append(Violation(kind, str(detail)))

    # Laws 4 and 8: objects are named by their bytes, and no killer is set aside without a control

    def _names(self) -> None:
        for key, data in self.stores.objects.items():
            if not key.startswith(PREFIXES):
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

    def _row(self, key: str, row: Row, fate: Fate) -> None:
        """A row is what its source record says under its own generation's rules."""
        position = position_of(row)
        if position not in self.known.arrivals or position not in self.known.members:
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
        elements = self.known.elements(position, row["_generation"])
        element = elements.get(place_of(row))
        if element is None or row["_elements"] != len(elements):
            self._wrong("a row of no element", f"{position} {place_of(row)} in {key}")
            return
        if micros(row["_arrival"]) != self.known.arrivals[position]:
            self._wrong("a row with another arrival", f"{position} in {key}")
        if element.fate != fate:
            told = f"{position} {place_of(row)} is {fate}, not {element.fate}"
            self._wrong("a verdict that the rules do not give", told)
            return
        self._holds(key, row, element)

    def _holds(self, key: str, row: Row, element: Element) -> None:
        """What a row has beside its place: a delivered one is known by what it is made of."""
        match element.fate:
            case "delivered":
                digest_ = self.digests.setdefault(element.identity, row["_digest"])
                own = (row["_digest"], row["_record_id"], row["_schema"])
                if own != (digest_, element.record_id, element.version):
                    self._wrong("a row of other bytes", f"{position_of(row)} in {key}")
            case "quarantined":
                if row["_body"] != element.body:
                    self._wrong("a reject without its bytes", f"{position_of(row)} in {key}")
                if row["_digest"] != digest(element.body):
                    self._wrong("a row of other bytes", f"{position_of(row)} in {key}")
            case "dropped":
                if row["_rule"] != element.rule:
                    self._wrong("dropped by another rule", f"{position_of(row)} in {key}")

    def _tell_apart(self) -> None:
        """Digests tell rows apart; a whole message's is of its bytes."""
        if len(set(self.digests.values())) < len(self.digests):
            self._wrong("two readings of one digest", len(self.digests))
        exploded = any("explode" in judge.verbs for judge in self.known.judges.values())
        for identity, told in self.digests.items():
            if not exploded and told != digest(identity):
                self._wrong("a row of other bytes", identity)

    def _choose(self) -> None:
        """Law 5, by hand: whole, then epoch, worst fate, most rows delivered, version."""
        found: dict[Position, dict[tuple[int, int, str], dict[Place, Fate]]] = {}
        for fate, rows in self._by_fate():
            for _, row in rows:
                named = (row["_epoch"], row["_version"], row["_generation"])
                elements = found.setdefault(position_of(row), {}).setdefault(named, {})
                elements[place_of(row)] = fate
        for position, generations in found.items():
            candidates = [
                (len(fates) == self._count(position, named[2]), named, fates)
                for named, fates in generations.items()
            ]
            whole, (_, _, generation), fates = max(candidates, key=_rank)
            if whole:
                self.chosen[position] = Chosen(generation, fates)

    def _count(self, position: Position, generation: str) -> int:
        return 1 if generation == UNREAD else len(self.known.elements(position, generation))

    def standing(self) -> list[Standing]:
        """The rows that analysts count, by hand: of every identity the earliest element."""
        self._choose()
        elements: dict[tuple[Position, Place], Standing] = {}
        for _, row in self.landing:
            position, one = position_of(row), Standing.of(row)
            if position in self.chosen and one.generation == self.chosen[position].generation:
                elements[position, one.place] = one
        found: dict[tuple[str, bytes], Standing] = {}
        for one in elements.values():
            found[one.identity] = min(found.get(one.identity, one), one)
        return sorted(found.values())

    def _fates(self) -> None:
        for position in self.known.members:
            parked = position in self.known.parked_positions
            if position not in self.known.settled_positions and not parked:
                self._wrong("stuck", position)
            elif position not in self.chosen and not parked:
                self._wrong("lost", position)

    def elements(self, fate: Fate) -> set[tuple[Position, Place]]:
        """What of every position is delivered, set aside or dropped: by law 5, by hand."""
        return {
            (position, place)
            for position, chosen in self.chosen.items()
            for place, its in chosen.fates.items()
            if its == fate
        }

    def fates(self) -> Counter[Fate]:
        """How many source records have each fate: their worst row's."""
        return Counter(chosen.worst for chosen in self.chosen.values())

    def identities(self) -> set[bytes]:
        """What analysts count: each reading once, by its digest. Equal ones have equal ids."""
        made = (self._element(*element).identity for element in self.elements("delivered"))
        return {self.digests[identity] for identity in made if identity in self.digests}

    def _element(self, position: Position, place: Place) -> Element:
        return self.known.elements(position, self.chosen[position].generation)[place]

    # Invariant 2: hot is what the records say

    def _hot(self) -> None:
        for position, place in self.elements("delivered"):
            made = self._item(position, self._element(position, place))
            if made is not None:
                self._wants(made)
        for key in self.items.keys() - self.stores.hot.keys():
            self._wrong("hot lacks an item", key)
        for key in self.stores.hot.keys() - self.items.keys():
            self._wrong("hot holds what no record says", key)
        for key in self.stores.hot.keys() & self.items.keys():
            if self.stores.hot[key] != self.items[key]:
                self._wrong("hot holds another item", key)

    def _wants(self, item: Item) -> None:
        """An item of its own, or in layout `latest` its device's, if none is newer."""
        if any("latest" in judge.verbs for judge in self.known.judges.values()):
            item = {**item, "pk": item["device_id"], "sk": {"S": "latest"}, "_at": item["sk"]}
        key = item["pk"]["S"], item["sk"]["S"]
        there = self.items.get(key, item)
        if "_at" not in item or there["_at"]["S"] <= item["_at"]["S"]:
            self.items[key] = item

    def _item(self, position: Position, element: Element) -> Item | None:
        """An element's hot item by hand; None where it was too old when it arrived."""
        age = self.known.arrivals[position] - element.event_micros
        if age >= contracts.HOT_DAYS * 86_400 * MICROS or element.identity not in self.digests:
            return None
        owner = element.says.get("owner") if element.has_owner else None
        hidden = None if owner is None else self._hidden(owner)
        return element.item(self.digests[element.identity], hidden)

    def _hidden(self, owner: str) -> str:
        """A name as tables have it, by the bucket's key."""
        key = bytes.fromhex(json.loads(self.stores.objects[HASH_KEY])["key"])
        return hmac.new(key, owner.encode(), "sha256").hexdigest()[:HASH_HEX_DIGITS]


def _rank(candidate: tuple[bool, tuple[int, int, str], dict[Place, Fate]]) -> tuple[Any, ...]:
    whole, (epoch, version, name), fates = candidate
    delivered = list(fates.values()).count("delivered")
    return (whole, epoch, WORST_FIRST.index(worst(fates)), delivered, version, name)
