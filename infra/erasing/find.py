"""What there is of a device: in raw, landing, quarantine and the lake.

Rows name the source records that they came of. What has no good row (rejected, dropped, not run
yet) is opened again, and its sender read as the contract says. A record that cannot be read and
has the id in its text may mention the device, or be of it: that is for people to decide.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from sinks import landing, raw
from sinks.bucket import Bucket
from sinks.lake.erase import KINDS
from sinks.lake.manifest import PREFIX as LAKE
from sinks.lake.workspace import Workspace, workspace
from sinks.landing import LANDING, QUARANTINE
from sinks.ledger import Attempt
from transform.contract import Contract
from transform.envelope import aggregate_in, open_record
from transform.erased import SHARED, WHOLE, Element, erased_of, is_erased
from transform.records import DROPPED_SCHEMA, POSITION
from transform.sender import may_be_told, sender, sender_of_reject

CANDIDATES = pa.schema([("_raw", pa.string()), ("_index", pa.int32())])
LINEAGE = pa.schema([f for f in DROPPED_SCHEMA if f.name != "_rule"])


@dataclass(frozen=True)
class Choice:
    """Whom to erase, and what else goes: what may mention the device, what others share with it."""

    contract: Contract
    device: str
    mentions: bool = False
    shared: bool = False

    @property
    def texts(self) -> set[bytes]:
        """How the id may stand in a body."""
        return {self.device.encode(), json.dumps(self.device)[1:-1].encode()}

    def names(self, body: bytes) -> bool:
        return any(text in body for text in self.texts)

    def sender(self, body: bytes) -> str | None:
        """Who sent a message, as far as it says so in the clear."""
        public = may_be_told(self.contract.field(self.contract.device))
        return sender(body, self.contract) if public else None


@dataclass
class Found:
    """What there is of a device. `raw` has all that is erased then of each object to be changed.

    `landing` and `quarantine` are rows by object, `lineage` all erased rows (`LINEAGE`), those of
    the lake too; `records` counts source records. `mentions` and `shared` are positions.
    """

    raw: dict[str, frozenset[Element]] = field(default_factory=dict)
    erased: dict[str, frozenset[Element]] = field(default_factory=dict)
    records: int = 0
    landing: dict[str, int] = field(default_factory=dict)
    quarantine: dict[str, int] = field(default_factory=dict)
    lake: dict[str, int] = field(default_factory=dict)
    lineage: list[pa.Table] = field(default_factory=list)
    mentions: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)


def find(bucket: Bucket, attempts: Sequence[Attempt], choice: Choice) -> Found:
    """Look for a device. It reads every object that the contract's records can be in."""
    found = Found()
    with workspace(bucket) as work:
        rows = _Rows(work, choice)
        rows.count(found)
        candidates = list(_candidates(bucket, _keys(bucket, attempts, choice), rows, found, choice))
        owners = rows.owners(candidates)
    for one in candidates:
        _judge(one, owners.get((one.key, one.index), {}), found, choice)
    for key in bucket.keys(f"{QUARANTINE}/{choice.contract.name}/"):
        _quarantined(landing.read(bucket, key), key, found, choice)
    return found


def leaves(row: Mapping[str, Any], found: Found, choice: Choice) -> bool:
    """Whether a quarantine row is of the device."""
    body, elements = row["_body"], found.erased.get(row["_raw"], frozenset())
    who = sender_of_reject(row["_step"], body, choice.contract) and choice.sender(body)
    if who is not None:
        return who == choice.device
    if is_erased(elements, row["_index"], row["_sub"]):
        return True
    return choice.mentions and _mentions(row, choice)


def _mentions(row: Mapping[str, Any], choice: Choice) -> bool:
    return row["_partition_key"] == choice.device or choice.names(row["_body"])


@dataclass(frozen=True)
class _Candidate:
    """A source record that may be of the device."""

    key: str
    index: int
    row: dict[str, Any]

    @property
    def position(self) -> str:
        return "/".join(self.row[name] for name in POSITION)


class _Rows:
    """Delivered rows of landing and lake, asked whose they are."""

    def __init__(self, work: Workspace, choice: Choice) -> None:
        self._work = work
        name, bucket = choice.contract.name, work.bucket
        prefixes = (f"{LANDING}/{name}/", *(f"{LAKE}/{name}/{kind}/" for kind in KINDS))
        keys = [key for prefix in prefixes for key in bucket.keys(prefix)]
        device = choice.device.replace("'", "''")
        own = f"\"{choice.contract.device}\" = '{device}'"
        self._columns = ", ".join(LINEAGE.names)
        self._sql = work.read(keys, f"filename, {own} AS own, {self._columns}")

    def count(self, found: Found) -> None:
        """Take note of the device's rows, by object and as lineage."""
        if not self._sql:
            return
        counted = self._work.rows(
            f"SELECT filename, count(*) FROM ({self._sql}) WHERE own GROUP BY ALL"
        )
        keys = self._work.keys_of(path for path, _ in counted)
        for key, (_, rows) in zip(keys, counted, strict=True):
            (found.landing if key.startswith(f"{LANDING}/") else found.lake)[key] = rows
        lineage = self._work.db.sql(f"SELECT {self._columns} FROM ({self._sql}) WHERE own")
        found.lineage.append(lineage.to_arrow_table().cast(LINEAGE))

    def records(self) -> dict[str, set[int]]:
        """Source records that the device's rows came of, by raw object."""
        found: dict[str, set[int]] = defaultdict(set)
        if self._sql:
            sql = f"SELECT DISTINCT _raw, _index FROM ({self._sql}) WHERE own"
            for key, index in self._work.rows(sql):
                found[key].add(index)
        return found

    def owners(self, some: Iterable[_Candidate]) -> dict[tuple[str, int], dict[int, set[bool]]]:
        """Of some source records, by member: whether rows are the device's, or another's."""
        found: dict[tuple[str, int], dict[int, set[bool]]] = defaultdict(dict)
        if not self._sql:
            return found
        rows = [{"_raw": one.key, "_index": one.index} for one in some]
        self._work.db.register("candidates", pa.Table.from_pylist(rows, schema=CANDIDATES))
        sql = f"""
            SELECT _raw, _index, _sub, list(DISTINCT own) FROM ({self._sql})
            SEMI JOIN candidates USING (_raw, _index) GROUP BY ALL
        """
        for key, index, sub, own in self._work.rows(sql):
            found[key, index][sub] = set(own)
        return found


def _keys(bucket: Bucket, attempts: Sequence[Attempt], choice: Choice) -> Iterator[str]:
    """Raw objects of the contract, and those of which no attempt says whose they are."""
    owners: dict[str, set[str]] = defaultdict(set)
    for attempt in attempts:
        owners[attempt.raw_key].add(attempt.contract)
    for key in bucket.keys(f"{raw.PREFIX}/"):
        if key not in owners or choice.contract.name in owners[key]:
            yield key


def _candidates(
    bucket: Bucket, keys: Iterable[str], rows: _Rows, found: Found, choice: Choice
) -> Iterator[_Candidate]:
    by_rows = rows.records()
    for key in keys:
        table = raw.read(bucket, key)
        found.erased[key] = erased_of(table)
        own = by_rows.get(key, set())
        for index, body in enumerate(table.column("_body").to_pylist()):
            group = table.column("_partition_key")[index].as_py()
            if index in own or group == choice.device or choice.names(body):
                (row,) = _plain(table.slice(index, 1))
                yield _Candidate(key, index, row)


def _plain(rows: pa.Table) -> list[dict[str, Any]]:
    at = rows.schema.get_field_index("_arrival")
    micros = rows.column("_arrival").cast(pa.int64())
    return rows.set_column(at, "_arrival", micros).to_pylist()  # type: ignore[no-any-return]


def _judge(one: _Candidate, owners: Mapping[int, set[bool]], found: Found, choice: Choice) -> None:
    """Which of a source record's members are the device's."""
    row, before = one.row, found.erased[one.key]
    said = _senders(row, choice)
    own = {sub for sub, whose in owners.items() if True in whose}
    others = {sub for sub, whose in owners.items() if False in whose}
    known = own | others  # where a message says another name than its row has, the row is right
    own |= {
        sub
        for sub, who in said.items()
        if choice.device in who and (sub not in known or len(who) > 1)
    }
    others |= {
        sub
        for sub, who in said.items()
        if who - {choice.device} and (sub not in known or choice.device in who)
    }
    maybe = {sub for sub, who in said.items() if not who} - own - others - set(owners)
    maybe = {sub for sub in maybe if not is_erased(before, one.index, sub)}
    if maybe and _mentions(row, choice):
        found.mentions.add(one.position)
        own |= maybe if choice.mentions else set()
    if not own:
        return
    elements = {(one.index, sub) for sub in own}
    whole = own >= said.keys() and not others
    apart = not own & others and row["_source"] == "kinesis" and aggregate_in(row["_body"])
    if whole:
        elements = {(one.index, WHOLE)}
    elif not apart:
        elements = {(one.index, sub) for sub in own - others} | {(one.index, SHARED)}
    if elements <= before:
        return
    if not (whole or apart):
        found.shared.add(one.position)
    found.records += 1
    found.erased[one.key] |= elements
    found.raw[one.key] = found.erased[one.key]


def _senders(row: Mapping[str, Any], choice: Choice) -> dict[int, set[str]]:
    """By member, who sent its messages, as far as they say."""
    contract = choice.contract
    opened = open_record(
        row["_body"],
        row["_partition_key"],
        row["_attributes"],
        row["_source"],
        contract.envelope,
        len(contract.fields),
        row["_arrival"],
    )
    found: dict[int, set[str]] = {sub: set() for sub in opened.subs}
    found |= {reject.sub: set() for reject in opened.rejects if reject.sub not in found}
    for sub, body in zip(opened.subs, opened.bodies, strict=True):
        if (who := choice.sender(body)) is not None:
            found[sub].add(who)
    return found


def _quarantined(rows: pa.Table, key: str, found: Found, choice: Choice) -> None:
    places = []
    for place, row in enumerate(rows.select([*LEAVING, *POSITION]).to_pylist()):
        if leaves(row, found, choice):
            places.append(place)
        elif row["_raw"] not in found.erased and _mentions(row, choice):
            found.mentions.add("/".join(row[name] for name in POSITION))  # its raw is gone
    if places:
        found.quarantine[key] = len(places)
        found.lineage.append(rows.take(pa.array(places)).select(LINEAGE.names).cast(LINEAGE))


LEAVING = ("_step", "_body", "_partition_key", "_raw", "_index", "_sub")
"""The columns by which `leaves` tells."""
