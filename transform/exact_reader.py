"""The reader that is the definition: it walks a message key by key, on its JSON text.

It names step, reason and field of every rejection, and keeps what the contract does not name as the
very text it came in. A message the fast reader will not take is read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from transform.contract import INT64_MAX, INT64_MIN, Contract, Field, Tree, Value, leaves
from transform.records import Reason, Rejection, Step
from transform.sequences import nests_deeper
from transform.timestamps import TimestampError, parse_json_timestamp

DEVICE_ID_MAX_BYTES = 1_024  # a DynamoDB partition key holds 2,048, and the day is added to it
UTF8_BYTES_MAX = 4  # of a character
DETAIL_MAX_CHARACTERS = 200
SHOWN_MAX_BYTES = 40  # of a value, in a detail
NESTING_MAX = 100  # fixed, because the interpreter's own depth varies with its version and stack

Row = list[Value | None]
"""The values of a contract's fields, in their order; timestamps in microseconds."""


def read(body: bytes, contract: Contract, tree: Tree) -> tuple[Row, str | None] | Rejection:
    """The row of any message and its `_rescued` JSON, or its rejection with step, reason, field."""
    try:
        values: dict[str, Value] = {}
        rescued = _take(_open(body), tree, values, ())
        return _row(values, contract), rescued
    except _RejectedError as rejected:
        return rejected.rejection


def fits_key(device: str) -> bool:
    """Whether a device id can be a DynamoDB key, with the day behind it."""
    if len(device) * UTF8_BYTES_MAX <= DEVICE_ID_MAX_BYTES:
        return device != ""
    return len(device.encode()) <= DEVICE_ID_MAX_BYTES


def _row(values: dict[str, Value], contract: Contract) -> Row:
    row: Row = []
    for spec in contract.fields:
        value = values.get(spec.name)
        if value is None and spec.required:
            raise _rejected("missing_field", f"{_dotted(spec.path)} is absent or null", spec)
        row.append(spec.default if value is None else value)
    device, spec = str(values[contract.device]), contract.field(contract.device)
    if not device:
        raise _rejected("missing_field", "the device id is empty", spec)
    if not fits_key(device):
        raise _rejected("too_long", f"the device id is over {DEVICE_ID_MAX_BYTES} bytes", spec)
    return row


def _open(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of a message, values still JSON text. A repeated key's last value counts."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        known = [name for magic, name in _COMPRESSED.items() if body.startswith(magic)]
        shown = f"; it looks like {known[0]}" if known else ""
        raise _refused("decode", "not_utf8", f"byte {error.start}: {error.reason}{shown}") from None
    if nests_deeper(body, NESTING_MAX):
        raise _refused("decode", "malformed_json", f"nested more than {NESTING_MAX} deep")
    try:
        msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise _explained(body, error) from None
    try:
        return _MEMBERS.decode(body)
    except msgspec.ValidationError:
        raise _refused("decode", "not_an_object", "the message is not a JSON object") from None


def _take(
    members: dict[str, msgspec.Raw],
    tree: Tree,
    values: dict[str, Value],
    path: tuple[str, ...],
) -> str | None:
    """Read the fields of one object into `values`; what no field claims comes back as JSON."""
    left: list[str] = []
    for key, raw in members.items():
        text = bytes(raw)
        branch = tree.get(key)
        if branch is None:
            left.append(f"{msgspec.json.encode(key).decode()}:{text.decode()}")
        elif text == b"null":
            continue
        elif isinstance(branch, Field):
            values[branch.name] = _value(text, branch)
        else:
            try:
                inner = _MEMBERS.decode(text)
            except msgspec.ValidationError:
                spec = next(iter(leaves(branch)))
                where = _dotted((*path, key))
                raise _rejected("wrong_type", f"{where} is not an object", spec) from None
            rest = _take(inner, branch, values, (*path, key))
            if rest is not None:
                left.append(f"{msgspec.json.encode(key).decode()}:{rest}")
    return "{" + ",".join(left) + "}" if left else None


def _value(text: bytes, spec: Field) -> Value:
    """A field's value out of its JSON text."""
    where = _dotted(spec.path)
    if spec.format is not None:
        try:
            return parse_json_timestamp(text, spec.format)
        except TimestampError as error:
            raise _rejected("bad_timestamp", f"{where}: {error}", spec) from None
    try:
        value = msgspec.json.decode(text, type=_TYPES[spec.type])
    except msgspec.ValidationError as error:
        if "out of range" in str(error):
            raise _refused("decode", "not_finite", f"{where} overflows a double", spec) from None
        raise _rejected(
            "wrong_type", f"{where} is not {_ARTICLE[spec.type]}: {_shown(text)}", spec
        ) from None
    if spec.type == "int64" and not INT64_MIN <= value <= INT64_MAX:
        raise _rejected("out_of_range", f"{where} does not fit an int64", spec)
    if spec.allowed is not None and value not in spec.allowed:
        raise _rejected("not_allowed", f"{where} is {_shown(text)}", spec)
    low, high = spec.minimum, spec.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise _rejected(
            "out_of_range", f"{where} is {_shown(text)}; the contract takes {low} to {high}", spec
        )
    return value  # type: ignore[no-any-return]


def _explained(body: bytes, error: msgspec.DecodeError) -> _RejectedError:
    """Why a body is not JSON, told apart: NaN, half a surrogate pair, or simply broken."""
    if "out of range" in str(error):
        return _refused("decode", "not_finite", "a number overflows a double")
    constants: list[str] = []
    try:
        value = json.loads(body.decode(), parse_constant=constants.append, parse_int=str)
    except ValueError:
        return _refused("decode", "malformed_json", str(error))
    if constants:
        return _refused("decode", "not_finite", f"{constants[0]} is not a number JSON can hold")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return _refused("decode", "lone_surrogate", "half of a surrogate pair is not a character")
    return _refused("decode", "malformed_json", str(error))


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _shown(text: bytes) -> str:
    shown = text[:SHOWN_MAX_BYTES].decode(errors="replace")
    return shown if len(text) <= SHOWN_MAX_BYTES else shown + "..."


class _RejectedError(Exception):
    """Carries a rejection out of the walk; never leaves this module."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.reason)
        self.rejection = rejection


def _rejected(reason: Reason, detail: str, spec: Field) -> _RejectedError:
    return _refused("check", reason, detail, spec)


def _refused(step: Step, reason: Reason, detail: str, spec: Field | None = None) -> _RejectedError:
    return _RejectedError(
        Rejection(step, reason, detail[:DETAIL_MAX_CHARACTERS], spec.name if spec else None)
    )


_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"\x78\x9c": "zlib",
}
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TYPES: Mapping[str, Any] = {"string": str, "int64": int, "float64": float, "bool": bool}
_ARTICLE = {
    "string": "a string",
    "int64": "an integer",
    "float64": "a number",
    "bool": "true or false",
}
