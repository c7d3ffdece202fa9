"""BatchWriteItem, its body the puts' own texts joined, and conditional PutItem over the wire."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from sinks.errors import Refused, Unavailable
from sinks.wire.answers import Answer, Broken
from sinks.wire.json_answers import checked
from sinks.wire.service import Request, Service
from sinks.wire.signature import Kind
from sinks.writes import CONDITION_FAILED, NEWEST_BY, key_of


@dataclass(frozen=True)
class Operation:
    """How puts are asked for, and which of them an answer leaves; both of a table's name."""

    target: str
    body: Callable[[str, Sequence[bytes]], bytes]
    left: Callable[[str, Sequence[bytes], Answer], list[bytes]]

    @cached_property
    def kind(self) -> Kind:
        target = f"DynamoDB_20120810.{self.target}"
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": target}
        return Kind("POST", headers)


def _batch(name: str, puts: Sequence[bytes]) -> bytes:
    return b'{"RequestItems":{"%b":[%b]}}' % (name.encode(), b",".join(puts))


def _left_of_batch(name: str, puts: Sequence[bytes], answer: Answer) -> list[bytes]:
    """UnprocessedItems. An answer without them acknowledges nothing."""
    unprocessed = _document(name, answer).get("UnprocessedItems")
    if not isinstance(unprocessed, dict):
        return list(puts)
    left = [key_of(put) for put in unprocessed.get(name, [])]
    return [put for put in puts if key_of(orjson.loads(put)) in left] if left else []


def _one(name: str, puts: Sequence[bytes]) -> bytes:
    (put,) = puts
    item = orjson.loads(put)["PutRequest"]["Item"]
    call = {
        "TableName": name,
        "Item": item,
        "ConditionExpression": "attribute_not_exists(pk) OR #at <= :at",
        "ExpressionAttributeNames": {"#at": NEWEST_BY},
        "ExpressionAttributeValues": {":at": item[NEWEST_BY]},
    }
    return orjson.dumps(call)


def _left_of_one(name: str, puts: Sequence[bytes], answer: Answer) -> list[bytes]:
    """Nothing, where the item is there or a newer one is."""
    try:
        _document(name, answer)
    except Refused as refused:
        if refused.code != CONDITION_FAILED:
            raise
        return []
    return [] if answer.body.startswith(b"{") else list(puts)


BATCH = Operation("BatchWriteItem", _batch, _left_of_batch)
NEWEST = Operation("PutItem", _one, _left_of_one)
"""One put, which leaves a newer item alone. Twice is as once: it replaces an item by itself."""


@dataclass(frozen=True)
class WireWrites:
    """`sinks.table.Writes` of one table, and `Together`."""

    service: Service
    name: str
    operation: Operation = BATCH

    def write(self, puts: Sequence[bytes]) -> list[bytes]:
        """One call; the puts it did not take."""
        try:
            answer = self.service.ask(self.request(puts), repeatable=True)
        except Broken as broken:
            raise Unavailable(f"write to {self.name}: {broken}") from broken
        return self.operation.left(self.name, puts, answer)

    def write_each(self, calls: Iterable[Sequence[bytes]]) -> list[list[bytes]]:
        """Calls under way at once; for each that was begun, in order, the puts it did not take."""
        begun: list[Sequence[bytes]] = []

        def requests() -> Iterable[Request]:
            for puts in calls:
                begun.append(puts)
                yield self.request(puts)

        answers = self.service.ask_each(requests())
        return [self._left_or_all(puts, one) for puts, one in zip(begun, answers, strict=False)]

    def request(self, puts: Sequence[bytes]) -> Request:
        """What is asked to make these puts."""
        return Request(self.operation.kind, "/", self.operation.body(self.name, puts))

    def _left_or_all(self, puts: Sequence[bytes], answer: Answer | Broken) -> list[bytes]:
        """A lost answer or a throttled call took nothing."""
        if isinstance(answer, Broken):
            return list(puts)
        try:
            return self.operation.left(self.name, puts, answer)
        except Unavailable:
            return list(puts)


def _document(name: str, answer: Answer) -> dict[str, Any]:
    """What the answer says. Raises where it is an error, or was garbled on its way."""
    what = f"write to {name}"
    document = checked(answer, what)
    told = answer.text(b"x-amz-crc32")
    if told and told != str(zlib.crc32(answer.body)):
        raise Unavailable(f"{what}: the answer has another crc32 than it says")
    return document
