"""BatchWriteItem over the wire: the body is the puts' own texts, joined."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from sinks.errors import Unavailable
from sinks.wire.answers import Answer, Broken
from sinks.wire.json_answers import checked
from sinks.wire.service import Request, Service

HEADERS = {
    "content-type": "application/x-amz-json-1.0",
    "x-amz-target": "DynamoDB_20120810.BatchWriteItem",
}


@dataclass(frozen=True)
class WireWrites:
    """`sinks.table.Writes` of one table."""

    service: Service
    name: str

    def write(self, puts: Sequence[bytes]) -> list[bytes]:
        """One call; the puts it did not take."""
        try:
            answer = self.service.ask(self._request(puts), repeatable=True)
        except Broken as broken:
            raise Unavailable(f"write to {self.name}: {broken}") from broken
        return self._left(puts, answer)

    def write_each(self, calls: Iterable[Sequence[bytes]]) -> list[list[bytes]]:
        """Calls under way at once; for each that was begun, in order, the puts it did not take."""
        begun: list[Sequence[bytes]] = []

        def requests() -> Iterable[Request]:
            for puts in calls:
                begun.append(puts)
                yield self._request(puts)

        answers = self.service.ask_each(requests())
        return [self._left_or_all(puts, one) for puts, one in zip(begun, answers, strict=False)]

    def _left_or_all(self, puts: Sequence[bytes], answer: Answer | Broken) -> list[bytes]:
        """A lost answer or a throttled call took nothing."""
        if isinstance(answer, Broken):
            return list(puts)
        try:
            return self._left(puts, answer)
        except Unavailable:
            return list(puts)

    def _left(self, puts: Sequence[bytes], answer: Answer) -> list[bytes]:
        """What an answer leaves. One without UnprocessedItems acknowledges nothing."""
        what = f"write to {self.name}"
        document = checked(answer, what)
        _check(answer, what)
        unprocessed = document.get("UnprocessedItems")
        if not isinstance(unprocessed, dict):
            return list(puts)
        left = [_key(put) for put in unprocessed.get(self.name, [])]
        return [put for put in puts if left and _key(orjson.loads(put)) in left]

    def _request(self, puts: Sequence[bytes]) -> Request:
        body = b'{"RequestItems":{"%b":[%b]}}' % (self.name.encode(), b",".join(puts))
        return Request("POST", "/", HEADERS, body)


def _check(answer: Answer, what: str) -> None:
    """Raise where the answer was garbled on its way: DynamoDB says its CRC32."""
    told = answer.text(b"x-amz-crc32")
    if told and told != str(zlib.crc32(answer.body)):
        raise Unavailable(f"{what}: the answer has another crc32 than it says")


def _key(put: Any) -> tuple[str, str]:
    item = put["PutRequest"]["Item"]
    return item["pk"]["S"], item["sk"]["S"]
