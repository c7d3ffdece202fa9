"""SenML packs in JSON (RFC 8428): each record by itself, with what it has from those before it.

    [{"bn":"urn:dev:ow:1:","bt":1.7e9,"n":"t","u":"Cel","v":20},{"n":"h","u":"%RH","v":40,"t":-1}]
    {"n":"urn:dev:ow:1:t","u":"Cel","v":20,"t":1.7e9}
    {"n":"urn:dev:ow:1:h","u":"%RH","v":40,"t":1699999999}

Numbers are the text they came in, or an exact sum of two decimals. A time under 2**28 counts from
"now", which is the record's arrival: so the same bytes sent twice are of two moments, and the same
source record is always of one. CBOR and XML are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation

import msgspec

from transform.records import Rejection
from transform.sequences import ARRAY_NESTING_MAX, nests_deeper

VERSIONS = (10, 26)  # RFC 8428's, and with it secondary units (RFC 9100)
RELATIVE_BELOW = 2**28  # seconds: what is less counts from now
NUMBER_CHARACTERS_MAX = 60  # of a number that is added to another, or is a time; a double has 24
MAGNITUDE_MAX = 400  # of a sum, as a power of ten: beyond every double
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")
VALUES = ("v", "vs", "vb", "vd")
LABELS = (*VALUES, "n", "u", "s", "t", "ut", "bn", "bt", "bu", "bv", "bs", "bver")

Record = bytes | Rejection


def resolved(records: Sequence[bytes], arrival: int, most: int) -> list[Record] | Rejection:
    """The records of a pack, resolved as section 4.6 says, in the pack's own order.

    One that cannot be is a `Rejection` in its place; what is no JSON is left as it is. `arrival` is
    in microseconds; together they are of at most `most` bytes, or all are rejected.
    """
    found: list[Record] = []
    pack, size = _Pack(arrival), 0
    for record in records:
        one = pack.next(record)
        size += len(one) if isinstance(one, bytes) else 0
        if size > most:
            detail = f"a SenML pack of more than {most} bytes when resolved, the most that is taken"
            return Rejection("envelope", "too_large", detail)
        found.append(one)
    return found


class _BadError(Exception):
    """What is wrong with a record; never leaves this module."""


@dataclass
class _Pack:
    """A pack on its way: the base fields that are in force, as the JSON text they came in.

    Where a base field cannot be read, no record after it can be resolved.
    """

    arrival: int
    number: int = 0
    version: int = VERSIONS[0]
    name: str = ""
    unit: bytes | None = None
    time: bytes | None = None
    value: bytes | None = None
    sum: bytes | None = None
    broken: str = ""

    def next(self, record: bytes) -> Record:
        """The next record, with all that is in force."""
        self.number += 1
        try:
            members = _members(record)
            if members is None:
                if record.startswith(b"{"):  # it may have held a base
                    self.broken = self.broken or f"it follows record {self.number}, which is broken"
                return record
            self._bases(members)
            return b"{" + b",".join(b'"%s":%s' % pair for pair in self._fields(members)) + b"}"
        except _BadError as bad:
            return Rejection("envelope", "bad_senml", f"record {self.number}: {bad}")

    def _bases(self, members: dict[str, bytes]) -> None:
        """Take note of a record's base fields."""
        try:
            self._version(members.get("bver"))
            _understood(label for label in members if label.startswith("b"))
            if "bn" in members:
                self.name = _text(members["bn"], "bn")
            if "bu" in members:
                _text(members["bu"], "bu")
                self.unit = members["bu"]
            self.time = _number(members, "bt") or self.time
            self.value = _number(members, "bv") or self.value
            self.sum = _number(members, "bs") or self.sum
        except _BadError as bad:
            self.broken = self.broken or f"it follows record {self.number}, where {bad}"
            raise
        if self.broken:
            raise _BadError(self.broken)

    def _version(self, text: bytes | None) -> None:
        if text is None:
            return
        if text not in [b"%d" % version for version in VERSIONS]:
            known = " and ".join(map(str, VERSIONS))
            raise _BadError(f"bver is {_shown(text)}; known are {known}")
        if self.number > 1 and int(text) != self.version:
            raise _BadError(f"bver is {int(text)}, before it was {self.version}")
        self.version = int(text)

    def _fields(self, members: dict[str, bytes]) -> Iterator[tuple[bytes, bytes]]:
        """A resolved record's fields, always in this order."""
        if self.version != VERSIONS[0]:
            yield b"bver", b"%d" % self.version
        yield b"n", self._name(members)
        if "u" in members:
            _text(members["u"], "u")
        unit = members.get("u", self.unit)
        if unit is not None:
            yield b"u", unit
        yield from self._values(members)
        yield b"t", self._time(members)
        update = _number(members, "ut")
        if update is not None:
            yield b"ut", update
        _understood(members)
        for label, text in members.items():
            if label not in LABELS:
                yield msgspec.json.encode(label)[1:-1], text

    def _name(self, members: dict[str, bytes]) -> bytes:
        name = self.name + (_text(members["n"], "n") if "n" in members else "")
        if not NAME.fullmatch(name):
            told = f"{name[:40]!r} is no name" if name else "it has no name"
            raise _BadError(f"{told}: letters, digits and -:./_ after a letter or digit")
        return b'"%s"' % name.encode()

    def _values(self, members: dict[str, bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The one value and the sum of a record; it has at least one of them."""
        own = [label for label in VALUES if label in members]
        if len(own) > 1:
            raise _BadError(f"{' and '.join(own)}; a record has one value")
        total = _added(_number(members, "s"), self.sum, "s + bs")
        if own and own[0] != "v":
            if not members[own[0]].startswith(b'"' if own[0] != "vb" else (b"true", b"false")):
                raise _BadError(f"{own[0]} is {_shown(members[own[0]])}")
            yield own[0].encode(), members[own[0]]
        elif own or (self.value is not None and "s" not in members):
            value = _added(_number(members, "v"), self.value, "v + bv")
            yield b"v", value or b""
        elif total is None:
            raise _BadError("it has neither a value nor a sum")
        if total is not None:
            yield b"s", total

    def _time(self, members: dict[str, bytes]) -> bytes:
        """Seconds since 1970. Without any time it was just now, which is the arrival."""
        text = _added(_number(members, "t"), self.time, "t + bt") or b"0"
        time = _decimal(text, "t")
        if time >= RELATIVE_BELOW:
            return text
        moment = _exact(Decimal(self.arrival).scaleb(-6), time, "t")
        if moment < RELATIVE_BELOW:
            raise _BadError(f"t is {_shown(text)}, which is before 1978")
        return f"{moment.normalize():f}".encode()


def _members(record: bytes) -> dict[str, bytes] | None:
    """A record's members as JSON text; `None` where it is no JSON: the decoder says so."""
    if nests_deeper(record, ARRAY_NESTING_MAX):
        return None
    try:
        _ANY.decode(record)
        return {label: bytes(text) for label, text in _MEMBERS.decode(record).items()}
    except msgspec.ValidationError:
        raise _BadError(f"it is {_shown(record)}, not an object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _understood(labels: Iterable[str]) -> None:
    """Labels that end in `_` may not be passed over by who does not know them."""
    for label in labels:
        if label.endswith("_"):
            raise _BadError(f"{label} must be understood, and is not")


def _text(text: bytes, label: str) -> str:
    try:
        return _STRING.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _BadError(f"{label} is {_shown(text)}, not text") from None


def _number(members: dict[str, bytes], label: str) -> bytes | None:
    text = members.get(label)
    if text is not None and not _NUMBER.fullmatch(text):
        raise _BadError(f"{label} is {_shown(text)}, not a number")
    return text


def _added(own: bytes | None, base: bytes | None, what: str) -> bytes | None:
    """The sum of two numbers as text; of one, or none, as it is."""
    if own is None or base is None:
        return own or base
    return str(_exact(_decimal(own, what), _decimal(base, what), what)).lower().encode()


def _decimal(text: bytes, what: str) -> Decimal:
    if len(text) > NUMBER_CHARACTERS_MAX:
        raise _BadError(f"{what}: a number of over {NUMBER_CHARACTERS_MAX} characters")
    return Decimal(text.decode())


def _exact(one: Decimal, other: Decimal, what: str) -> Decimal:
    try:
        found = _EXACT.add(one, other)
    except (Inexact, InvalidOperation):
        raise _BadError(f"{what} has more digits than are added") from None
    if abs(found.adjusted()) > MAGNITUDE_MAX:
        raise _BadError(f"{what} is beyond every double")
    return found


def _shown(text: bytes) -> str:
    return text[:40].decode(errors="replace")


_EXACT = Context(prec=3 * NUMBER_CHARACTERS_MAX, traps=[Inexact, InvalidOperation])
_NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ANY = msgspec.json.Decoder(msgspec.Raw)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
