"""The reader that is the definition: it walks a message key by key, on its JSON text.

It names step, reason and field of every rejection, and keeps what the contract does not name as the
very text it came in. A message the fast reader will not take is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from transform import readable
from transform.contract import (
    Explode,
    Field,
    Path,
    Tree,
    Unknown,
    Where,
    dotted,
    leaves,
    of_list,
)
from transform.field_types import INT64_MAX, INT64_MIN, Value
from transform.records import Reason, Rejection, Step
from transform.timestamps import TimestampError, parse_json_timestamp

DEVICE_ID_MAX_BYTES = 1_024  # a DynamoDB partition key holds 2,048, and the day is added to it
UTF8_BYTES_MAX = 4  # of a character
SURE_CHARACTERS = DEVICE_ID_MAX_BYTES // UTF8_BYTES_MAX  # of a device id, whichever they are
DETAIL_MAX_CHARACTERS = 200
SHOWN_MAX_BYTES = 40  # of a value, in a detail
HIDDEN = "not shown"  # instead of the value of a redacted or hashed field

READINGS = "[]"
"""What the list that will be exploded is called among the values: no field has such a name."""

Parts = TypeVar("Parts")
Row = list[Any]
"""The values of some fields, in their order; timestamps in microseconds. The list that will be
exploded stands behind them, as the JSON text of each element."""


def read(
    body: bytes, fields: Sequence[Field], tree: Tree, unknown: Unknown
) -> tuple[Row, str | None] | Rejection:
    """The values in any message and its `_rescued` JSON, or its rejection with step and reason.

    Absent fields are None, and not yet judged: see `completed`.
    """
    members = readable.members(body)
    if isinstance(members, Rejection):
        return members
    try:
        values: dict[str, Any] = {}
        rescued = _take(members, tree, values, (), unknown)
    except _RejectedError as rejected:
        return rejected.rejection
    row = [values.get(spec.name) for spec in fields]
    return [
        *row,
        [bytes(item) for item in values[READINGS]],
    ] if READINGS in values else row, rescued


def completed(row: Row, fields: Sequence[Field], device: int) -> Rejection | None:
    """Put defaults into a row, in place. What it lacks nonetheless is why it is rejected.

    `device` is the place of the device id, -1 where it is not among the fields.
    """
    try:
        for place, spec in enumerate(fields):
            if row[place] is None and spec.required:
                raise _rejected("missing_field", f"{dotted(spec.path)} is absent or null", spec)
            row[place] = spec.default if row[place] is None else row[place]
        if device >= 0:
            _judge_device(str(row[device]), fields[device])
    except _RejectedError as rejected:
        return rejected.rejection
    return None


def attribute(text: str | None, spec: Field) -> Value | Rejection | None:
    """The value of a field that is an attribute of the message, or its rejection."""
    try:
        if text is None:
            if spec.required:
                raise _rejected("missing_field", f"attribute {spec.attribute} is absent", spec)
            return spec.default
        quoted = spec.type in {"string", "timestamp"}
        return _value(msgspec.json.encode(text) if quoted else text.strip().encode(), spec)
    except UnicodeEncodeError:
        return Rejection("check", "lone_surrogate", f"attribute {spec.attribute}", spec.name)
    except _RejectedError as rejected:
        return rejected.rejection


def device_wrong(device: str) -> tuple[Reason, str] | None:
    """What keeps a device id from being a DynamoDB key."""
    if not device:
        return "missing_field", "the device id is empty"
    if not fits_key(device):
        return "too_long", f"the device id is over {DEVICE_ID_MAX_BYTES} bytes"
    return None


def fits_key(device: str) -> bool:
    """Whether a device id can be a DynamoDB key, with the day behind it."""
    if len(device) <= SURE_CHARACTERS:
        return device != ""
    return len(device.encode()) <= DEVICE_ID_MAX_BYTES


def _judge_device(device: str, spec: Field) -> None:
    wrong = device_wrong(device)
    if wrong is not None:
        raise _rejected(*wrong, spec)


def _take(
    members: dict[str, msgspec.Raw],
    tree: Tree,
    values: dict[str, Any],
    path: Path,
    unknown: Unknown,
) -> str | None:
    """Read the fields of one object into `values`; what no field claims comes back as JSON."""
    left: list[str] = []
    for key, raw in members.items():
        rest = _claim(bytes(raw), tree.get(key), values, (*path, key), unknown)
        if rest is not None:
            left.append(f"{msgspec.json.encode(key).decode()}:{rest}")
    return "{" + ",".join(left) + "}" if left and unknown == "rescue" else None


def _take_places(
    items: list[bytes], tree: Tree, values: dict[str, Any], path: Path, unknown: Unknown
) -> str | None:
    """The same of a list. What is left keeps its place: before it is null for what was read."""
    left = [
        _claim(text, tree.get(place), values, (*path, place), unknown)
        for place, text in enumerate(items)
    ]
    while left and left[-1] is None:
        left.pop()
    return "[" + ",".join(rest or "null" for rest in left) + "]" if left else None


def _claim(
    text: bytes, branch: Any, values: dict[str, Any], path: Path, unknown: Unknown
) -> str | None:
    """Read one value into `values`; what of it no field claims comes back as JSON."""
    branch = _within(branch, text)
    if text == b"null" and (branch is not None or isinstance(path[-1], int)):
        return None
    if branch is None:
        if unknown == "reject":
            raise _refused("check", "unknown_field", f"the contract has no {dotted(path)}")
        return text.decode() if unknown == "rescue" else None
    if isinstance(branch, (Field, Explode, Where)):
        if isinstance(branch, Field):
            values[branch.name] = _value(text, branch)
        elif isinstance(branch, Explode):
            values[READINGS] = [bytes(item) for item in _parts(_ELEMENTS, text, path)]
        return None
    spec = next(iter(leaves(branch)), None)
    if of_list(branch):
        items = [bytes(item) for item in _parts(_ELEMENTS, text, path, spec)]
        return _take_places(items, branch, values, path, unknown)
    return _take(_parts(_MEMBERS, text, path, spec), branch, values, path, unknown)


def _within(branch: Any, text: bytes) -> Any:
    """What a contract has at a value; nothing where it only knows what cannot be in this one."""
    if not isinstance(branch, Mapping) or text == b"null" or _claims(branch):
        return branch
    return branch if text.startswith(b"[" if of_list(branch) else b"{") else None


def _claims(tree: Tree) -> bool:
    """Whether anything below is read, and not only known."""
    branches = tree.values()
    return any(_claims(b) if isinstance(b, Mapping) else not isinstance(b, Where) for b in branches)


def _parts(
    decoder: msgspec.json.Decoder[Parts], text: bytes, path: Path, spec: Field | None = None
) -> Parts:
    """The members of an object, or the elements of a list."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        kind = "a list" if decoder is _ELEMENTS else "an object"
        raise _refused("check", "wrong_type", f"{dotted(path)} is not {kind}", spec) from None


def _value(text: bytes, spec: Field) -> Value:
    """A field's value out of its JSON text."""
    where = _where(spec)
    if spec.format is not None:
        try:
            return parse_json_timestamp(text, spec.format)
        except TimestampError as error:
            told = HIDDEN if spec.privacy else error
            raise _rejected("bad_timestamp", f"{where}: {told}", spec) from None
    try:
        value = msgspec.json.decode(text, type=_TYPES[spec.type])
    except msgspec.DecodeError as error:
        if "out of range" in str(error):
            raise _refused("decode", "not_finite", f"{where} overflows a double", spec) from None
        raise _rejected(
            "wrong_type", f"{where} is not {_ARTICLE[spec.type]}: {_shown(text, spec)}", spec
        ) from None
    if spec.type == "int64" and not INT64_MIN <= value <= INT64_MAX:
        raise _rejected("out_of_range", f"{where} does not fit an int64", spec)
    if spec.allowed is not None and value not in spec.allowed:
        raise _rejected("not_allowed", f"{where} is {_shown(text, spec)}", spec)
    low, high = spec.minimum, spec.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        taken = f"the contract takes {low} to {high}"
        raise _rejected("out_of_range", f"{where} is {_shown(text, spec)}; {taken}", spec)
    return value  # type: ignore[no-any-return]


def _where(spec: Field) -> str:
    return dotted(spec.path) or f"attribute {spec.attribute}"


def _shown(text: bytes, spec: Field) -> str:
    if spec.privacy:
        return HIDDEN
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
    field = spec.name.partition("/")[0] if spec else None  # behind it the number of an alias
    return _RejectedError(Rejection(step, reason, detail[:DETAIL_MAX_CHARACTERS], field))


_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TYPES: Mapping[str, Any] = {"string": str, "int64": int, "float64": float, "bool": bool}
_ARTICLE = {
    "string": "a string",
    "int64": "an integer",
    "float64": "a number",
    "bool": "true or false",
}
