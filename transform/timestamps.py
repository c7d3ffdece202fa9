"""Moments as text, to microseconds since 1970 UTC: exactly, and never through a double.

An epoch second of 2026 with seven decimals does not survive a double: 1594598735.7727768 has 17
significant digits and a double holds 15 to 17. So numbers are read from their text, and what lies
beyond the microsecond is rounded half to even.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Literal

import msgspec

TimestampFormat = Literal["iso8601", "epoch_seconds", "epoch_millis"]
Reader = Callable[[bytes], int | None]
"""A JSON text as microseconds since 1970. Raises `TimestampError`."""

NOTHING = (b"", b"null")  # an absent timestamp's text, and a null one's
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EARLIEST = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z, the first moment ISO text can name
LATEST = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z, the last
DIGITS_MAX = 40  # of a number's text: far above any moment, far below what costs time to read
DAY_SECONDS = 86_400
HOUR_MINUTES = 60
EXACT = Context(prec=4 * DIGITS_MAX)

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:[.,](\d+))?)?"
    r"(?:([Zz])|([+-])(\d\d)(?::?(\d\d))?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?([eE][+-]?\d+)?", re.ASCII)
_EPOCH_DIGITS = {"epoch_seconds": 6, "epoch_millis": 3}

_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_ZULU = {
    b'"0000-00-00T00:00:00Z"',
    b'"0000-00-00T00:00:00.000Z"',
    b'"0000-00-00T00:00:00.000000Z"',
}
_OFFSET = {text.replace(b"Z", offset) for text in _ZULU for offset in (b"+00:00", b"-00:00")}
_EPOCH_WITHOUT_ZONE = EPOCH.replace(tzinfo=None)  # from which a Z is counted in half the time
_MIDNIGHT = b"24"  # an hour that newer versions of Python read
_WHOLE_DIGITS = {"epoch_seconds": 11, "epoch_millis": 14}  # of which any number is a moment


class TimestampError(ValueError):
    """Text that names no moment, or none between the years 1 and 9999."""


def parse_timestamp(text: str, form: TimestampFormat) -> int:
    """Microseconds since 1970 UTC, rounded half to even. Raises `TimestampError`."""
    micros = _iso(text) if form == "iso8601" else _epoch(text, _EPOCH_DIGITS[form])
    if not EARLIEST <= micros <= LATEST:
        raise TimestampError(f"{text[:DIGITS_MAX]!r} is not between the years 1 and 9999")
    return micros


def parse_json_timestamp(text: bytes, form: TimestampFormat) -> int:
    """`parse_timestamp` of a JSON number's or string's own text. Raises `TimestampError`."""
    if text[:1] == b'"':
        inner = text[1:-1]
        moment = str(msgspec.json.decode(text)) if b"\\" in inner else _ascii(inner)
    elif form == "iso8601":
        raise TimestampError(
            f"{text[:DIGITS_MAX].decode(errors='replace')} is not an ISO-8601 text"
        )
    else:
        moment = _ascii(text)
    return parse_timestamp(moment, form)


def reader_of(form: TimestampFormat, *, required: bool = True) -> Reader:
    """`parse_json_timestamp` of one format, to the bit, which reads ordinary texts sooner.

    Ordinary is what is written without an exponent, a sign or more decimals than count, and ISO
    text as most libraries write it. Nothing at all is None where it is not `required`.
    """

    def exact(text: bytes) -> int | None:
        return None if text in NOTHING and not required else parse_json_timestamp(text, form)

    if form == "iso8601":
        return lambda text: _ordinary_iso(text) or exact(text)
    digits, longest = _EPOCH_DIGITS[form], _WHOLE_DIGITS[form]
    scale: int = 10**digits

    def read(text: bytes) -> int | None:
        if text.isdigit() and len(text) <= longest:
            return int(text) * scale
        whole, _, part = text.partition(b".")
        if len(whole) <= longest and len(part) <= digits and whole.isdigit() and part.isdigit():
            return int(whole + part.ljust(digits, b"0"))
        return exact(text)

    return read


def read_each(texts: Sequence[bytes], form: TimestampFormat, read: Reader) -> list[int | None]:
    """What `read`, the reader of the format, makes of each; whole numbers need no call for each."""
    if form != "iso8601" and all(texts) and b"".join(texts).isdigit():
        scale: int = 10 ** _EPOCH_DIGITS[form]
        if max(map(len, texts)) <= _WHOLE_DIGITS[form]:
            return [int(text) * scale for text in texts]
    return [read(text) for text in texts]


def _ordinary_iso(text: bytes) -> int | None:
    """Microseconds; None says nothing."""
    shape = text.translate(_ZEROS)
    if text[12:14] == _MIDNIGHT:
        return None
    try:
        if shape in _ZULU:
            since = datetime.fromisoformat(text[1:-2].decode()) - _EPOCH_WITHOUT_ZONE
        elif shape in _OFFSET and text[-3:] < b"6":
            since = datetime.fromisoformat(text[1:-1].decode()) - EPOCH
        else:
            return None
    except ValueError:
        return None
    micros = (since.days * DAY_SECONDS + since.seconds) * 1_000_000 + since.microseconds
    return micros if EARLIEST <= micros <= LATEST else None


def _ascii(text: bytes) -> str:
    try:
        return text.decode("ascii")
    except UnicodeDecodeError:
        raise TimestampError("it holds letters that no time has") from None


def _iso(text: str) -> int:
    match = _ISO.fullmatch(text)
    if match is None:
        raise TimestampError(f"{text[:DIGITS_MAX]!r} is not an ISO-8601 time")
    date, hour, minute, second, fraction, zulu, sign, offset_hours, offset_minutes = match.groups()
    if zulu is None and sign is None:
        raise TimestampError(f"{text[:DIGITS_MAX]!r} has no offset: Z or +hh:mm")
    try:
        day = datetime.fromisoformat(f"{date}T00:00:00+00:00")
    except ValueError as error:
        raise TimestampError(f"{text[:DIGITS_MAX]!r}: {error}") from None
    seconds = (int(hour) * 60 + int(minute)) * 60 + int(second or 0)
    if sign is not None:
        offset = int(offset_hours) * 3600 + int(offset_minutes or 0) * 60
        if offset >= DAY_SECONDS or int(offset_minutes or 0) >= HOUR_MINUTES:
            raise TimestampError(f"{text[:DIGITS_MAX]!r} has an offset of a day or more")
        seconds += offset if sign == "-" else -offset
    micros = (day - EPOCH) // MICROSECOND + seconds * 1_000_000
    return micros + _fraction(fraction or "", 6)


def _epoch(text: str, digits: int) -> int:
    if len(text) > DIGITS_MAX:
        raise TimestampError(f"{text[:DIGITS_MAX]!r}... is over {DIGITS_MAX} characters long")
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise TimestampError(f"{text[:DIGITS_MAX]!r} is not a decimal number")
    minus, whole, fraction, exponent = match.groups()
    if exponent is not None:
        if abs(int(exponent[1:])) > DIGITS_MAX:
            raise TimestampError(f"{text!r} is not between the years 1 and 9999")
        return round(EXACT.scaleb(Decimal(text), digits))  # round() is half to even
    scale: int = 10**digits
    micros = int(whole) * scale + _fraction(fraction or "", digits)
    return -micros if minus else micros


def _fraction(text: str, digits: int) -> int:
    """The first `digits` decimals as an integer, the rest rounded half to even."""
    if len(text) <= digits:
        return int(text.ljust(digits, "0") or "0")
    kept, rest = int(text[:digits] or "0"), text[digits:].rstrip("0")
    if rest > "5" or (rest == "5" and kept % 2 == 1):
        return kept + 1
    return kept
