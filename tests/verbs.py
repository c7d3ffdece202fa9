"""What the tests of contract verbs share: a contract of a few lines, and what becomes of messages.

Messages are Python values, or bytes as they are. Attributes are text by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from tests.support import NOON, SECOND
from transform.contract import Contract, Lookup
from transform.contract_file import parse_contract
from transform.contract_rules import Files
from transform.pipeline import Transform
from transform.records import Batch, Delivery

AT = NOON // SECOND
IDENTITY = """
name = "fleet"
{top}
[identity]
device = "d"
event_time = "at"
record_id = ["d", "at"]
[[field]]
name = "d"
type = "string"
{device}
[[field]]
name = "at"
type = "timestamp"
{time}
"""
SECONDS = 'format = "epoch_seconds"'
BASE = {"d": "a", "at": AT}
KEY = b"a key"


def contract(
    rest: str = "",
    top: str = "",
    files: Files | None = None,
    device: str = "",
    time: str = SECONDS,
) -> Contract:
    """A contract with a device `d`, a time `at` with these keys, and the rest of its file."""
    text = IDENTITY.format(top=top, device=device, time=time) + rest
    return parse_contract(text.encode(), "fleet.toml", files)


def field(name: str, kind: str, **keys: Any) -> str:
    """A `[[field]]` table."""
    lines = (f"{key} = {json.dumps(value)}" for key, value in keys.items())
    return "\n".join(["[[field]]", f'name = "{name}"', f'type = "{kind}"', *lines, ""])


def one_file(data: bytes) -> Files:
    """Every lookup is this file."""

    def read(_: Lookup) -> bytes:
        return data

    return read


def body_of(message: Any) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message).encode()


def like(**members: Any) -> dict[str, Any]:
    """A message that is good by itself, and these members of it."""
    return {**BASE, **members}


def delivery(
    messages: Iterable[Any],
    attributes: Sequence[Mapping[str, str] | None] = (),
    arrivals: Sequence[int] = (),
    first: int = 0,
) -> Delivery:
    bodies = [body_of(message) for message in messages]
    count = len(bodies)
    given = [
        json.dumps({name: {"stringValue": text} for name, text in found.items()}) if found else None
        for found, _ in zip(chain(attributes, repeat(None)), bodies, strict=False)
    ]
    return Delivery(
        source="kinesis",
        stream="s",
        shards=["shardId-000000000000"] * count,
        sequences=[str(first + number) for number in range(count)],
        groups=["group"] * count,
        arrivals=list(arrivals) or [NOON] * count,
        attributes=given,
        bodies=bodies,
    )


def applied(
    rules: Contract | Transform,
    *messages: Any,
    attributes: Sequence[Mapping[str, str] | None] = (),
    arrivals: Sequence[int] = (),
) -> Batch:
    """These messages, each a source record, through a contract."""
    transform = rules if isinstance(rules, Transform) else Transform(rules, hash_key=KEY)
    batch = transform.apply(delivery(messages, attributes, arrivals).table(), "raw/x")
    conserved(batch)
    return batch


def conserved(batch: Batch) -> None:
    """Each place has one fate, children are numbered from 0, and `_elements` counts them."""
    places: dict[int, list[tuple[int, int]]] = {}
    elements: dict[int, set[int]] = {}
    for table in (batch.rows, batch.rejects, batch.drops):
        for row in table.select(["_index", "_sub", "_child", "_elements"]).to_pylist():
            places.setdefault(row["_index"], []).append((row["_sub"], row["_child"]))
            elements.setdefault(row["_index"], set()).add(row["_elements"])
    assert sorted(places) == list(range(batch.counts.received))
    for index, found in places.items():
        assert elements[index] == {len(found)}
        for sub in {sub for sub, _ in found}:
            children = sorted(child for of, child in found if of == sub)
            assert children == list(range(len(children)))


def values(batch: Batch, *names: str) -> list[Any]:
    """The rows' values of these columns; of one column they stand alone."""
    rows = batch.rows.select(list(names)).to_pylist()
    return [row[names[0]] if len(names) == 1 else tuple(row.values()) for row in rows]


def refused(batch: Batch) -> list[tuple[str, str, str | None]]:
    """Step, reason and field of every reject, in the order of their places."""
    rows = sorted(batch.rejects.to_pylist(), key=lambda r: (r["_index"], r["_sub"], r["_child"]))
    return [(row["_step"], row["_reason"], row["_field"]) for row in rows]


def details(batch: Batch) -> list[str]:
    return batch.rejects.column("_detail").to_pylist()  # type: ignore[no-any-return]


def dropped(batch: Batch) -> list[str]:
    return batch.drops.column("_rule").to_pylist()  # type: ignore[no-any-return]
