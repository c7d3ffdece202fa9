"""Invariant 3: the ledger agrees with counts that were made without it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from infra.simulation.known import (
    UNREAD,
    Item,
    Known,
    Row,
    Stores,
    Violation,
    micros,
    position_of,
)
from infra.simulation.sources import Position


@dataclass
class Books:
    """The ledger of a run, held against the objects that its attempts name (`tables`)."""

    known: Known
    stores: Stores
    tables: Mapping[str, Sequence[Row]]
    violations: list[Violation] = field(default_factory=list)

    def judge(self) -> list[Violation]:
        self._ledger()
        return self.violations

    def _wrong(self, kind: str, detail: object) -> None:
        self.violations.append(Violation(kind, str(detail)))

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
            if not _placed(item, self.tables.get(item["raw_key"]["S"], ())):
                self._wrong("the ledger misplaces a Delivery", item["sk"]["S"])
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
        drops = self.tables.get(text["dropped_key"], [])
        kept, fallen, landed = (
            {row["_index"] - first for row in some} - back for some in (rejects, drops, rows)
        )
        counted = {
            "landing_rows": len(rows),
            "quarantine_rows": len(rejects),
            "dropped_rows": len(drops),
            "quarantined": len(kept),
            "dropped": len(fallen - kept - landed),
            "delivered": len(landed - kept),
        }
        for row in (*rows, *rejects, *drops):
            own = (text["generation"], text["raw_key"])
            if row["_generation"] != UNREAD and (row["_generation"], row["_raw"]) != own:
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


def _placed(item: Item, raw: Sequence[Row]) -> bool:
    """Whether an attempt says rightly how many records came, and when, if it says so."""
    if not item["shard"]["S"]:
        return True
    arrivals = [micros(row["_arrival"]) for row in raw]
    told = [int(item[name]["N"]) for name in ("archived", "first_arrival", "last_arrival")]
    return told == [len(raw), min(arrivals), max(arrivals)]
