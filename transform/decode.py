"""One JSON message at a time into a contract's row, every failure attributed.

There are two readers. `Decoder.fast` is msgspec's typed decoder, which accepts the ordinary record
in half a microsecond and otherwise says nothing. `Decoder.slow` walks the message key by key and is
the definition: it names step, reason and field, keeps unknown fields, and its verdict stands. The
fast reader may refuse what the slow one accepts, never the other way round (a property test).
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from transform.contract import INT64_MAX, INT64_MIN, Contract, Field, Value
from transform.records import Reason, Rejection, Step
from transform.timestamps import TimestampError, TimestampFormat, parse_timestamp

DEVICE_ID_MAX_BYTES = 1_024  # a DynamoDB partition key holds 2,048, and the day is added to it
DETAIL_MAX_CHARACTERS = 200
NESTING_MAX = 100  # fixed, because the interpreter's own depth varies with its version and stack

Row = list[Value | None]
"""The values of a contract's fields, in their order; timestamps in microseconds."""


@dataclass(frozen=True)
class Decoder:
    """Both readers of one contract. Build once per process: `Decoder.of(contract)`."""

    contract: Contract
    _typed: msgspec.json.Decoder[Any]
    _values: Callable[[Any], tuple[Any, ...]]
    _tree: Mapping[str, Any]
    _times: tuple[tuple[int, TimestampFormat, bool], ...]
    _defaults: tuple[tuple[int, Value], ...]
    _device: int

    @classmethod
    def of(cls, contract: Contract) -> Decoder:
        tree = _tree(contract)
        struct, reach = _struct(tree, "")
        fields = contract.fields
        return cls(
            contract=contract,
            _typed=msgspec.json.Decoder(struct),
            _values=operator.attrgetter(*(reach[f.name] for f in fields)),
            _tree=tree,
            _times=tuple((i, f.format, f.required) for i, f in enumerate(fields) if f.format),
            _defaults=tuple((i, f.default) for i, f in enumerate(fields) if f.default is not None),
            _device=[f.name for f in fields].index(contract.device),
        )

    def decode(self, body: bytes) -> tuple[Row, str | None] | Rejection:
        """The row of a message and its `_rescued` JSON, or why there is none."""
        if len(body) > self.contract.max_body_bytes:
            return Rejection(
                "envelope",
                "too_large",
                f"{len(body)} bytes; the contract takes {self.contract.max_body_bytes}",
            )
        row = self.fast(body)
        return (row, None) if row is not None else self.slow(body)

    def fast(self, body: bytes) -> Row | None:
        """The row of an ordinary message; `None` for every other, whatever is the matter."""
        try:
            row: list[Any] = list(self._values(self._typed.decode(body)))
            for i, form, required in self._times:
                text = bytes(row[i])
                if text in _NOTHING:
                    if required:
                        return None
                    row[i] = None
                else:
                    row[i] = _moment(text, form)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        for i, default in self._defaults:
            if row[i] is None:
                row[i] = default
        device = row[self._device]
        return row if isinstance(device, str) and _fits_key(device) else None

    def slow(self, body: bytes) -> tuple[Row, str | None] | Rejection:
        """The row of any message, or its rejection with step, reason and field."""
        try:
            members = _open(body)
            row, rescued = self._walk(members)
        except _RejectedError as rejected:
            return rejected.rejection
        return row, rescued

    def _walk(self, members: dict[str, msgspec.Raw]) -> tuple[Row, str | None]:
        values: dict[str, Value] = {}
        rescued = _take(members, self._tree, values, ())
        row: Row = []
        for spec in self.contract.fields:
            value = values.get(spec.name)
            if value is None and spec.required:
                raise _rejected("missing_field", f"{_dotted(spec.path)} is absent or null", spec)
            row.append(spec.default if value is None else value)
        device = str(row[self._device])
        if not device:
            raise _rejected(
                "missing_field", "the device id is empty", self.contract.fields[self._device]
            )
        if not _fits_key(device):
            raise _rejected(
                "too_long",
                f"the device id is over {DEVICE_ID_MAX_BYTES} bytes",
                self.contract.fields[self._device],
            )
        return row, rescued


# The typed reader


def _struct(tree: Mapping[str, Any], prefix: str) -> tuple[Any, dict[str, str]]:
    """A msgspec Struct shaped like the contract's messages, and each field's way through it.

    An absent object stands in as an empty one, so that one `attrgetter` reaches every field; a
    `null` object is refused here and read slowly.
    """
    fields: list[Any] = []
    rename: dict[str, str] = {}
    reach: dict[str, str] = {}
    for number, (key, branch) in enumerate(tree.items()):
        attribute = f"f{number}"
        rename[attribute] = key
        if isinstance(branch, Field):
            reach[branch.name] = prefix + attribute
            fields.append((attribute, *_annotated(branch)))
            continue
        inner, below = _struct(branch, f"{prefix}{attribute}.")
        reach.update(below)
        needed = any(leaf.required for leaf in _leaves(branch))
        empty = () if needed else (msgspec.field(default_factory=inner),)
        fields.append((attribute, inner, *empty))
    struct = msgspec.defstruct(
        "Message", fields, rename=rename, forbid_unknown_fields=True, kw_only=True, gc=False
    )
    return struct, reach


def _annotated(spec: Field) -> tuple[Any, ...]:
    """A field's type for msgspec, and `None` behind it where the field may be absent."""
    if spec.type == "timestamp":
        return (msgspec.Raw,) if spec.required else (msgspec.Raw, msgspec.Raw())
    kind = _annotation(spec)
    return (kind,) if spec.required else (kind | None, None)


def _annotation(spec: Field) -> Any:
    if spec.allowed is not None:
        return Literal[spec.allowed]
    if spec.type == "int64":
        low = INT64_MIN if spec.minimum is None else spec.minimum
        high = INT64_MAX if spec.maximum is None else spec.maximum
        return Annotated[int, msgspec.Meta(ge=low, le=high)]
    if spec.type == "float64":
        return Annotated[float, msgspec.Meta(ge=spec.minimum, le=spec.maximum)]
    return {"string": str, "bool": bool}[spec.type]


# The reader that is the definition


def _open(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of a message, values still JSON text. A repeated key's last value counts."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise _refused("decode", "not_utf8", f"byte {error.start}: {error.reason}") from None
    if _nested_too_deeply(body):
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
    tree: Mapping[str, Any],
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
                spec = next(iter(_leaves(branch)))
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
            return _moment(text, spec.format)
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


def _moment(text: bytes, form: TimestampFormat) -> int:
    """A timestamp's microseconds out of its JSON text, a number or a string."""
    if text[:1] == b'"':
        inner = text[1:-1]
        moment = str(msgspec.json.decode(text)) if b"\\" in inner else _ascii(inner)
    elif form == "iso8601":
        raise TimestampError(f"{_shown(text)} is not an ISO-8601 text")
    else:
        moment = _ascii(text)
    return parse_timestamp(moment, form)


def _ascii(text: bytes) -> str:
    try:
        return text.decode("ascii")
    except UnicodeDecodeError:
        raise TimestampError("it holds letters that no time has") from None


def _nested_too_deeply(body: bytes) -> bool:
    """Whether more than `NESTING_MAX` brackets are open somewhere, those in strings aside."""
    if body.count(b"[") + body.count(b"{") <= NESTING_MAX:
        return False
    depth = 0
    for token in _TOKENS.finditer(body):
        depth += _DEEPER.get(token.group(), 0)
        if depth > NESTING_MAX:
            return True
    return False


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


def _tree(contract: Contract) -> dict[str, Any]:
    """The contract's paths as nested dicts, a `Field` at each leaf."""
    tree: dict[str, Any] = {}
    for spec in contract.fields:
        branch = tree
        for key in spec.path[:-1]:
            branch = branch.setdefault(key, {})
        branch[spec.path[-1]] = spec
    return tree


def _leaves(branch: Mapping[str, Any]) -> list[Field]:
    found: list[Field] = []
    for leaf in branch.values():
        found.extend([leaf] if isinstance(leaf, Field) else _leaves(leaf))
    return found


def _fits_key(device: str) -> bool:
    if len(device) * 4 <= DEVICE_ID_MAX_BYTES:
        return device != ""
    return len(device.encode()) <= DEVICE_ID_MAX_BYTES


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _shown(text: bytes) -> str:
    shown = text[:40].decode(errors="replace")
    return shown if len(text) <= 40 else shown + "..."


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


_NOTHING = (b"", b"null")  # an absent timestamp's text, and a null one's
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)  # strings and brackets
_DEEPER = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TYPES: Mapping[str, Any] = {"string": str, "int64": int, "float64": float, "bool": bool}
_ARTICLE = {
    "string": "a string",
    "int64": "an integer",
    "float64": "a number",
    "bool": "true or false",
}
