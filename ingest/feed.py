"""The rejection feed: what producers are told of a Delivery's rejects, one event for each reason.

Transform sums the rejects up in its answer and the workflow puts them on the event bus after Settle
(`infra/workflows/batch.asl.json`). What cannot be told there changes nothing: quarantine has all.

A summary is bounded whatever is rejected, for it travels in the state. What is cut is counted: a
kind beyond the limits in `untold`, examples by `count`, text by the number of its characters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transform.contract import Contract
from transform.sender import detail_to_tell, may_be_told, sender_of_reject

SOURCE = "millrace"
DETAIL_TYPE = "Records rejected"
EVENTS_MAX = 10  # EventBridge PutEvents: entries a call
EXAMPLES_MAX = 5  # of an event: the first ones, enough to find the cause
DETAIL_BYTES_MAX = 300  # of an example's detail, as JSON
DEVICE_BYTES_MAX = 300  # of its device, as JSON; a longer name is left out
SUMMARY_BYTES_MAX = 65_536  # a quarter of a state's 256 KiB, and of what an entry may have
ID_BYTES = 16
NAMED_ROWS = 8_192  # whose names are texts at once

KIND = ["_step", "_reason", "_field"]
ELEMENT = ("_stream", "_shard", "_sequence", "_sub", "_child")

Event = dict[str, Any]


def summary(rejects: pa.Table, contract: Contract) -> dict[str, Any]:
    """The kinds of rejects in a quarantine table, the most frequent first, and how many are untold.

    `rejected` holds what an event says beside the Delivery's own pointers.
    """
    if not rejects.num_rows:
        return {"rejected": [], "untold": 0}
    events: list[Event] = []
    told, room = 0, SUMMARY_BYTES_MAX
    for rows in _kinds(rejects):
        event = _event(rejects, rows, contract)
        room -= len(json.dumps(event))
        if len(events) == EVENTS_MAX or room < 0:
            break
        events.append(event)
        told += len(rows)
    return {"rejected": events, "untold": rejects.num_rows - told}


def _kinds(rejects: pa.Table) -> Iterator[pa.Array]:
    """The rows of each step, reason and field; of equal counts the first to come is first."""
    numbers = pa.array(range(rejects.num_rows), pa.int64())
    numbered = rejects.select(KIND).append_column("row", numbers)
    groups = numbered.group_by(KIND, use_threads=False).aggregate([("row", "list")])
    yield from sorted((one.values for one in groups.column("row_list")), key=len, reverse=True)


def _event(rejects: pa.Table, rows: pa.Array, contract: Contract) -> Event:
    """What is said of rejects of one kind, which are these rows. No more of them is copied."""
    examples = [rejects.slice(n.as_py(), 1).to_pylist()[0] for n in rows[:EXAMPLES_MAX]]
    first = {name: examples[0][name] for name in (*KIND, "_version", "_generation")}
    event = {
        "id": _id(rejects, rows, first),
        "version": first["_version"],
        "generation": first["_generation"],
        "step": first["_step"],
        "reason": first["_reason"],
        "count": len(rows),
        "examples": [_example(row, contract) for row in examples],
    }
    return event if first["_field"] is None else event | {"field": first["_field"]}


def _id(rejects: pa.Table, rows: pa.Array, first: dict[str, Any]) -> str:
    """The same elements, judged alike by the same rules, have the same id, told whenever."""
    contract = rejects.column("_contract")[0].as_py()
    named = hashlib.blake2b(json.dumps([first, contract]).encode(), digest_size=ID_BYTES)
    columns = [_coded(rejects.column(name)).take(rows) for name in ELEMENT]
    elements = pa.table(columns, names=list(ELEMENT))
    ranks = pa.table([_ranks(column) for column in columns], names=list(ELEMENT))
    order = pc.sort_indices(ranks, sort_keys=[(name, "ascending") for name in ELEMENT])
    for start in range(0, len(order), NAMED_ROWS):
        some = elements.take(order.slice(start, NAMED_ROWS))
        texts = [column.cast(pa.string()) for column in some.columns]
        named.update("\n".join(pc.binary_join_element_wise(*texts, "/").to_pylist()).encode())
    return named.hexdigest()


def _coded(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece; texts, each of which many rows have, by their numbers."""
    if pa.types.is_string(column.type):
        column = column.dictionary_encode()
    return column.combine_chunks()


def _ranks(column: pa.Array) -> pa.Array:
    """Numbers in the order of a coded column's values."""
    if not pa.types.is_dictionary(column.type):
        return column
    return pc.sort_indices(pc.sort_indices(column.dictionary)).take(column.indices)


def _example(row: dict[str, Any], contract: Contract) -> dict[str, Any]:
    """Where one of them is and what is wrong with it."""
    example = {name.removeprefix("_"): row[name] for name in ELEMENT if name != "_stream"}
    detail = detail_to_tell(row["_detail"], row["_field"], contract)
    example["detail"] = _cut(detail, DETAIL_BYTES_MAX)
    device = None
    if may_be_told(contract.field(contract.device)):
        device = sender_of_reject(row["_step"], row["_body"], contract)
    if device is not None and len(json.dumps(device)) <= DEVICE_BYTES_MAX:
        example["device"] = device
    return example


def _cut(text: str, most: int) -> str:
    """Text of at most so many bytes of JSON; of what is cut off the characters are counted."""
    if len(json.dumps(text)) <= most:
        return text
    left = len(text)
    while len(json.dumps(shown := f"{text[:left]}… (+{len(text) - left})")) > most:
        left -= 1
    return shown
