"""Bodies of many messages: a JSON array, NDJSON, a JSON text sequence (RFC 7464).

Messages come out as the very bytes they are in, without the space around them. Nothing but the
sequence itself is judged here: a message that is broken is the decoder's to reject, alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec

from transform.records import Rejection

BOM = b"\xef\xbb\xbf"
RECORD_SEPARATOR = b"\x1e"
ARRAY_BYTES_MAX = 8_388_608  # opened at once: at two bytes an element some 250 MB
ARRAY_NESTING_MAX = 200  # fixed, as the interpreter's own varies; what nests 101 is rejected alone


def elements_of(body: bytes, most: int, *, lines: bool) -> list[bytes] | Rejection | None:
    """The messages in a body, at most `most`; `None` where it is no sequence but one message.

    With `lines` it is NDJSON even if that does not show.
    """
    text = body.removeprefix(BOM).lstrip(SPACE) if body[:1] in _BEFORE else body
    first = text[:1]
    if first == b"[" and (found := _array(text, most)) is not None:
        return found
    if first == RECORD_SEPARATOR:
        return _parts(_SEPARATED, text, most)
    if lines or (first == b"{" and _are_lines(text)):
        return _parts(_LINE, text, most)
    return None


def nests_deeper(text: bytes, most: int) -> bool:
    """Whether more than `most` brackets are open somewhere, those in strings aside."""
    if text.count(b"[") + text.count(b"{") <= most:
        return False
    return any(depth > most for _, depth in _depths(text))


def _array(text: bytes, most: int) -> list[bytes] | Rejection | None:
    if len(text) > ARRAY_BYTES_MAX:
        detail = f"an array of {len(text)} bytes; at most {ARRAY_BYTES_MAX} are opened"
        return Rejection("envelope", "too_large", detail)
    try:
        raws: Sequence[msgspec.Raw | bytes] = _ARRAY.decode(text)
    except (msgspec.DecodeError, RecursionError):
        broken = _between_commas(text, most)
        if broken is None:
            return None
        raws = broken
    if len(raws) > most:
        detail = f"more than {most} messages in {len(text)} bytes, the most that are opened"
        return Rejection("envelope", "too_many_elements", detail)
    found = [bytes(raw) for raw in raws]
    if any(nests_deeper(element, ARRAY_NESTING_MAX) for element in found):
        return None
    return found or Rejection("envelope", "no_records", "the array is empty")


def _between_commas(text: bytes, most: int) -> list[bytes] | None:
    """The elements of an array in which some are no JSON; `None` where its end is not its own.

    Of more than `most` the first that are too many.
    """
    found, begin, depth, end = [], 1, 0, 0
    for token in _MARKS.finditer(text):
        mark, end = token.group(), token.end()
        depth += _DEEPER.get(mark, 0)
        if depth > ARRAY_NESTING_MAX:
            return None
        if (depth == 0 and mark == b"]") or (depth == 1 and mark == b","):
            found.append(text[begin : end - 1].strip(SPACE))
            begin = end
        if depth == 0 or len(found) > most:
            break
    closed = begin == end and depth == 0 and not text[end:].strip(SPACE)
    return found if closed or len(found) > most else None


def _are_lines(text: bytes) -> bool:
    """Whether the first line is a whole `{...}` and another one follows that is not blank."""
    end = text.find(b"\n")
    if end < 0 or not _LINE.search(text, end):
        return False
    line = text[:end].rstrip(SPACE)
    return line.endswith(b"}") and _is_whole(line)


def _is_whole(line: bytes) -> bool:
    """Whether all that the line's first bracket opens is closed at its very end, and not before."""
    try:
        _ANY.decode(line)
    except (msgspec.DecodeError, RecursionError):
        closed = next((at for at, depth in _depths(line) if depth <= 0), None)
        return closed == len(line)
    return True


def _depths(text: bytes) -> Iterator[tuple[int, int]]:
    """Behind each bracket of a JSON text, strings aside: the place, and how many are open."""
    depth = 0
    for token in _TOKENS.finditer(text):
        if change := _DEEPER.get(token.group()):
            depth += change
            yield token.end(), depth


def _parts(part: re.Pattern[bytes], text: bytes, most: int) -> list[bytes] | Rejection:
    found = [m.group().rstrip(SPACE) for m in islice(part.finditer(text), most + 1)]
    if len(found) > most:
        detail = f"more than {most} messages in {len(text)} bytes, the most that are opened"
        return Rejection("envelope", "too_many_elements", detail)
    return found or Rejection("envelope", "no_records", "there is no line that is not blank")


SPACE = b" \t\r\n"  # of JSON
_BEFORE = (b"", b" ", b"\t", b"\r", b"\n", BOM[:1])
_LINE = re.compile(rb"[^ \t\r\n][^\n]*+")
_SEPARATED = re.compile(rb"[^ \t\r\n\x1e][^\x1e]*+")
_STRING = rb'"(?:[^"\\]++|\\.)*+"?'
_TOKENS = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_MARKS = re.compile(_STRING + rb"|[\[\]{},]", re.DOTALL)
_DEEPER = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_ANY = msgspec.json.Decoder(msgspec.Raw)
