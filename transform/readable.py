"""Whether a body is a message at all: one JSON object, in characters and numbers that columns hold.

What is wrong with one that is not is told apart, whatever contract would have read it.
"""

from __future__ import annotations

import json

import msgspec

from transform.records import Reason, Rejection
from transform.sequences import nests_deeper

NESTING_MAX = 100  # fixed, because the interpreter's own depth varies with its version and stack


def members(body: bytes) -> dict[str, msgspec.Raw] | Rejection:
    """The members of a message, values still JSON text. A repeated key's last value counts."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        known = [name for magic, name in _COMPRESSED.items() if body.startswith(magic)]
        shown = f"; it looks like {known[0]}" if known else ""
        return _refused("not_utf8", f"byte {error.start}: {error.reason}{shown}")
    if nests_deeper(body, NESTING_MAX):
        return _refused("malformed_json", f"nested more than {NESTING_MAX} deep")
    try:
        msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        if not _overflow_does_not_count(body, error):
            return _explained(body, error)
    try:
        return _MEMBERS.decode(body)
    except msgspec.ValidationError:
        return _refused("not_an_object", "the message is not a JSON object")
    except msgspec.DecodeError as error:  # in what does not count, beside a number that overflows
        return _explained(body, error)


def unreadable(body: bytes) -> Rejection | None:
    """Why a body is no message."""
    found = members(body)
    return found if isinstance(found, Rejection) else None


def is_json(body: bytes) -> bool:
    """Whether any reader takes all of a body as JSON, at a glance; False says nothing."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return not nests_deeper(body, NESTING_MAX)


def _overflow_does_not_count(body: bytes, error: msgspec.DecodeError) -> bool:
    """Whether the only number that overflows is the value of a key that comes again further on."""
    if "out of range" not in str(error):
        return False
    try:
        counts = json.loads(body.decode(), parse_int=float)
        json.dumps(counts, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def _explained(body: bytes, error: msgspec.DecodeError) -> Rejection:
    """Why a body is not JSON, told apart: NaN, half a surrogate pair, or simply broken."""
    if "out of range" in str(error):
        return _refused("not_finite", "a number overflows a double")
    constants: list[str] = []
    try:
        value = json.loads(body.decode(), parse_constant=constants.append, parse_int=str)
    except ValueError:
        return _refused("malformed_json", str(error))
    if constants:
        return _refused("not_finite", f"{constants[0]} is not a number JSON can hold")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return _refused("lone_surrogate", "half of a surrogate pair is not a character")
    return _refused("malformed_json", str(error))


def _refused(reason: Reason, detail: str) -> Rejection:
    return Rejection("decode", reason, detail)


_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"\x78\x9c": "zlib",
}
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
