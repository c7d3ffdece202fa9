"""What a source record holds: one message, or many in whatever layers a producer put around them.

    source record ──KPL──▶ members ──gzip, zstd, base64, wrappers──▶ array, lines ──▶ messages

What is unambiguous opens by itself: a KPL aggregate, compression by its magic, base64 of any such
thing, an array, NDJSON. What is not is declared in an `Envelope`. Whatever is not opened stays
whole for the decoder, which says what is wrong with it. A message's bytes, its numbers and its fate
here are functions of body, attributes and contract.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Literal, NamedTuple

from transform.compressed import decompressed, is_compressed
from transform.encoded import ENCODED_CHARACTERS_MIN, decoded
from transform.kpl import CELLS_MAX, KPL_MAGIC, MEMBER_BYTES_MIN, MEMBERS_ALWAYS, is_aggregate
from transform.records import Rejection, Source
from transform.senml import resolved
from transform.sequences import SPACE, elements_of
from transform.wrapped import Attributes, Wrapper, attributes_of, unwrapped

if TYPE_CHECKING:
    import pyarrow as pa

LAYERS_MAX = 4  # of compression and base64: base64 of gzip in an aggregate is two
OPENED_BYTES_ALWAYS = 16_384  # from a source record of any size; 10,000 of them are in a Delivery
OPENED_RATIO_MAX = 40  # opened by received bytes; JSON of one fleet comes to 10 to 30
OPENED_BYTES_MAX = 33_554_432  # from one source record
ELEMENTS_ALWAYS = MEMBERS_ALWAYS  # of a source record of any size
ELEMENT_BYTES_MIN = 15  # of a message with a device, a time and what is between two
COMPRESSED_ELEMENT_BYTES_MIN = 12  # three quarters of real ones; 366,000 of them are in an event
READING_BYTES_MIN = 8  # of a source record, of each row that lists in its messages come to
READING_CELLS_ALWAYS = 12_000  # 32 rows of 375 fields, 24 of 500: 120 million in a Delivery
COMPRESSED_CELLS_MAX = 25  # messages by fields, of a compressed byte: 110 million in an event


@dataclass(frozen=True)
class Envelope:
    """What a contract says of its messages' packing; what is unambiguous needs no word.

    With `ndjson` every line is a message, even where the first is broken; with `senml` an array is
    a pack, whose records come out resolved. `unwrap` names wrappers from the outside in; where one
    is not there, the next is looked for.
    """

    body: Literal["json", "ndjson", "senml"] = "json"
    unwrap: tuple[Wrapper, ...] = ()


class Unopened(NamedTuple):
    """An element that cannot be opened, as it came, and why."""

    sub: int
    child: int
    group: str | None
    body: bytes
    rejection: Rejection


@dataclass
class Opened:
    """The messages of one source record, in order; all columns but the last are as long.

    `subs` is the message's place in its aggregate (0 for a plain record), `children` its place in
    what the member holds. `rejects` have places of their own among them.
    """

    bodies: list[bytes] = field(default_factory=list)
    subs: array[int] = field(default_factory=lambda: array("i"))
    children: array[int] = field(default_factory=lambda: array("i"))
    groups: list[str | None] = field(default_factory=list)
    attributes: list[Attributes | None] = field(default_factory=list)
    rejects: list[Unopened] = field(default_factory=list)


def plain(body: bytes, envelope: Envelope) -> bool:
    """Whether a body is itself its one message, in a fifteenth of a microsecond.

    False says nothing: `open_record` knows.
    """
    return (
        (NEWLINE not in body or body.find(b"\n") == len(body) - 1)
        and body[:1] == b"{"
        and not envelope.unwrap
        and envelope.body == "json"
    )


def all_plain(bodies: pa.ChunkedArray, envelope: Envelope) -> bool:
    """Whether all of these are plain, as columns. False says nothing."""
    if envelope.unwrap or envelope.body != "json":
        return False
    if not all(map(bytes.startswith, bodies.to_pylist(), repeat(b"{"))):
        return False
    texts = (chunk.buffers()[2] for chunk in bodies.chunks)
    return not any(text is not None and b"\n" in text.to_pybytes() for text in texts)


def open_record(  # noqa: PLR0913, PLR0917  a source record's columns, and what the contract says
    body: bytes,
    group: str | None,
    attributes_json: str | None,
    source: Source,
    envelope: Envelope,
    fields: int,
    arrival: int = 0,
) -> Opened:
    """Every message of one source record; `group` is its partition key or message group.

    `fields` is how many columns the contract makes of a message; `arrival`, in microseconds, is
    what times in a SenML pack count from.
    """
    walk = _Walk(envelope, len(body), fields, arrival)
    attributes = attributes_of(attributes_json)
    aggregate = aggregate_in(body) if source == "kinesis" else None
    if aggregate is None:
        walk.message(body, 0, group, attributes)
        return walk.opened
    from transform.kpl_reader import members_of  # noqa: PLC0415  protobuf is for aggregates alone

    members = members_of(aggregate, fields)
    if isinstance(members, Rejection):
        walk.opened.rejects.append(Unopened(0, 0, group, body, members))
        return walk.opened
    if all(plain(data, envelope) for _, data in members):
        return _each_its_message(members, attributes)
    walk.spend(len(members), MEMBER_BYTES_MIN)
    for sub, (key, data) in enumerate(members):
        walk.message(data, sub, key, attributes)
    return walk.opened


def rows_max(size: int, fields: int) -> int:
    """To how many rows of so many fields the lists in a source record of `size` bytes may come."""
    worth = max(READING_BYTES_MIN, fields // COMPRESSED_CELLS_MAX)
    always = min(ELEMENTS_ALWAYS, READING_CELLS_ALWAYS // fields)
    return min(max(always, size // worth), CELLS_MAX // fields)


class _Piece(NamedTuple):
    """What is left to be opened of an element.

    `came` is the element before any layer of its own was undone. `alone` is one of a sequence,
    which is not taken apart again before it is unwrapped.
    """

    came: bytes
    body: bytes
    attributes: Attributes | None
    wrappers: tuple[Wrapper, ...]
    layers: int = 0
    compressed: bool = False
    alone: bool = False


class _Walk:
    """One source record's way through its layers, and what may still come out of it.

    Each element has its own limits, by its bytes, and all of them share the record's: one that is
    out of proportion is rejected alone, and many together stay in bounds.
    """

    def __init__(self, envelope: Envelope, size: int, fields: int, arrival: int) -> None:
        self.opened = Opened()
        self.envelope, self.arrival = envelope, arrival
        self.bytes_left = _opened_max(size)
        self.worth_left = max(size, ELEMENTS_ALWAYS * ELEMENT_BYTES_MIN)
        self.elements_left = CELLS_MAX // fields - 1
        self.compressed_worth = max(COMPRESSED_ELEMENT_BYTES_MIN, fields // COMPRESSED_CELLS_MAX)
        self.sub, self.child = 0, 0
        self.group: str | None = None

    def message(
        self, body: bytes, sub: int, group: str | None, attributes: Attributes | None
    ) -> None:
        """Everything in a record, or in a member of an aggregate."""
        self.sub, self.child, self.group = sub, 0, group
        if plain(body, self.envelope):
            self._add([body], attributes)
        else:
            self._open(_Piece(body, body, attributes, self.envelope.unwrap))

    def spend(self, count: int, worth: int) -> None:
        """Takes note of `count` more elements, of `worth` received bytes each."""
        self.elements_left -= count
        self.worth_left -= count * worth

    def _open(self, piece: _Piece) -> None:
        while isinstance(found := self._next(piece), _Piece):
            piece = found
        if isinstance(found, Rejection):
            self._reject(piece.came, found)
        elif found is not None and piece.wrappers and not self._is_pack(piece, found[0]):
            for body in found:
                self._open(piece._replace(came=body, body=body, alone=True))
        elif self.envelope.body == "senml":
            self._resolve(piece, [piece.body] if found is None else found)
        else:
            self._add([piece.body] if found is None else found, piece.attributes)

    def _next(self, piece: _Piece) -> _Piece | list[bytes] | Rejection | None:
        """What one layer less leaves: a piece or several, or nothing to be undone."""
        if not piece.alone and piece.layers < LAYERS_MAX:
            found = self._unpacked(piece)
            if found is not None:
                return found
        for place, wrapper in enumerate(piece.wrappers, 1):
            inner = unwrapped(wrapper, piece.body, piece.attributes)
            if isinstance(inner, Rejection):
                return inner
            if inner is not None:
                body, attributes = inner
                left = piece.wrappers[place:]
                return piece._replace(body=body, attributes=attributes, wrappers=left, alone=False)
        return None if piece.alone else self._elements(piece)

    def _unpacked(self, piece: _Piece) -> _Piece | Rejection | None:
        if is_compressed(piece.body):
            most = min(_opened_max(len(piece.came)), self.bytes_left)
            found = decompressed(piece.body, most)
            if isinstance(found, Rejection):
                return found
            self.bytes_left -= len(found)
            return piece._replace(body=found, layers=piece.layers + 1, compressed=True)
        text = decoded(piece.body) if len(piece.body) >= ENCODED_CHARACTERS_MIN else None
        if text is None or not _OPENS.match(text):
            return None
        return piece._replace(body=text, layers=piece.layers + 1)

    def _elements(self, piece: _Piece) -> list[bytes] | Rejection | None:
        most = max(ELEMENTS_ALWAYS, 1 + len(piece.body) // ELEMENT_BYTES_MIN)
        worth = ELEMENT_BYTES_MIN
        if piece.compressed:
            worth = self.compressed_worth
            most = min(most, max(ELEMENTS_ALWAYS, len(piece.came) // worth))
        more = max(0, min(most - 1, self.elements_left, self.worth_left // worth))
        found = elements_of(piece.body, 1 + more, lines=self.envelope.body == "ndjson")
        if isinstance(found, list):
            self.spend(len(found) - 1, worth)
        return found

    def _is_pack(self, piece: _Piece, first: bytes) -> bool:
        """Whether an array is one SenML pack, not a batch of wrapped ones."""
        return self.envelope.body == "senml" and not any(
            unwrapped(wrapper, first, piece.attributes) for wrapper in piece.wrappers
        )

    def _resolve(self, piece: _Piece, records: list[bytes]) -> None:
        """Records of an array inherit from those before; lines are each a pack of their own."""
        array = _ARRAY.match(piece.body) is not None
        for pack in [records] if array else [[record] for record in records]:
            found = resolved(pack, self.arrival, self.bytes_left)
            if isinstance(found, Rejection):
                self._reject(piece.came if array else pack[0], found)
                continue
            for record, one in zip(pack, found, strict=True):
                if isinstance(one, Rejection):
                    self._reject(record, one)
                else:
                    self.bytes_left -= len(one)
                    self._add([one], piece.attributes)

    def _add(self, bodies: list[bytes], attributes: Attributes | None) -> None:
        count, opened = len(bodies), self.opened
        opened.bodies += bodies
        opened.subs.extend(repeat(self.sub, count))
        opened.children.extend(range(self.child, self.child + count))
        opened.groups += [self.group] * count
        opened.attributes += [attributes] * count
        self.child += count

    def _reject(self, body: bytes, why: Rejection) -> None:
        self.opened.rejects.append(Unopened(self.sub, self.child, self.group, body, why))
        self.child += 1


def _each_its_message(members: list[tuple[str, bytes]], attributes: Attributes | None) -> Opened:
    """An ordinary aggregate, without a walk through each member."""
    count = len(members)
    return Opened(
        bodies=[data for _, data in members],
        subs=array("i", range(count)),
        children=array("i", bytes(4 * count)),
        groups=[key for key, _ in members],
        attributes=[attributes] * count,
    )


def aggregate_in(body: bytes) -> bytes | None:
    """A body that is a KPL aggregate, or base64 of one."""
    if not body.startswith(KPL_MAGIC) and body.lstrip(SPACE).startswith(_KPL_BASE64):
        body = decoded(body) or b""
    return body if is_aggregate(body) else None


def _opened_max(size: int) -> int:
    """How many bytes may be opened of what came in `size` bytes."""
    return min(OPENED_BYTES_ALWAYS + OPENED_RATIO_MAX * size, OPENED_BYTES_MAX)


JSON = Envelope()
NEWLINE = ord("\n")  # a number is found by memchr alone: a third of the time of bytes
_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*+\[")
_KPL_BASE64 = b"84maw"
_OPENS = re.compile(rb"(?:\xef\xbb\xbf|\x1e)?[ \t\r\n]*+[{\[]|\x1f\x8b|\x28\xb5\x2f\xfd")
