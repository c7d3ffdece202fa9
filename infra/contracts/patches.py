"""What could be changed in a contract so that it takes what it rejects, by the reason.

Most rejections are the producer's to mend: then there is no patch, and the note says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from infra.contracts.edits import field_table, with_key, without_key
from infra.contracts.observed import Seen, is_time
from transform.contract import Contract, Field
from transform.contract_file import BODY_MAX_BYTES
from transform.sender import step
from transform.timestamps import TimestampFormat

ALLOWED_MAX = 20  # values that a patch adds to a list
FUTURE_MAX_SECONDS = 3_600  # beyond, a clock is wrong, not the limit
PRODUCER = "it is the producer's to mend"


@dataclass(frozen=True)
class Rejects:
    """Some rejected messages of one reason and field."""

    contract: Contract
    field: Field | None
    bodies: Sequence[bytes]
    details: Sequence[str]

    def values(self) -> Iterator[Any]:
        """What the field held, where a message can be read and has it."""
        for body in self.bodies:
            value = member(body, self.field.path if self.field else ())
            if value is not None:
                yield value

    @property
    def text(self) -> str:
        return self.contract.source.decode()

    def with_field(self, key: str, value: Any) -> str:
        """The contract's text with another value of a key of the field."""
        assert self.field is not None  # noqa: S101  asked only for reasons that name a field
        return with_key(self.text, field_table(self.contract, self.field.name), key, value)


@dataclass(frozen=True)
class Proposal:
    """What is to be said, and the contract's text as it could be: None if it should not change."""

    note: str
    text: str | None = None


def propose(reason: str, rejects: Rejects) -> Proposal:
    """What could be done about rejections of this reason."""
    rule = _RULES.get(reason)
    if rule is None or (reason in _OF_FIELDS and rejects.field is None):
        return Proposal(f"not a matter of the contract: {PRODUCER}")
    return rule(rejects)


def member(body: bytes, path: Iterable[str | int]) -> Any:
    """The value at a path of a message; None where it has none or cannot be read."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    for key in path:
        value = step(value, key)
    return value


def _out_of_range(rejects: Rejects) -> Proposal:
    numbers = [v for v in rejects.values() if isinstance(v, (int, float))]
    field = rejects.field
    if not numbers or field is None:
        return Proposal(f"no number to be seen: {PRODUCER}")
    low, high = min(numbers), max(numbers)
    note = f"values from {low:g} to {high:g}; widen the range if they are real readings"
    if field.minimum is not None and low < field.minimum:
        return Proposal(note, rejects.with_field("min", _outward(field, low, math.floor)))
    if field.maximum is not None and high > field.maximum:
        return Proposal(note, rejects.with_field("max", _outward(field, high, math.ceil)))
    return Proposal(f"{note}; they do not fit an int64")


def _outward(field: Field, limit: float, whole: Callable[[float], int]) -> float:
    """A limit a little beyond: whole, so that it does not look measured."""
    return whole(limit) if field.type == "int64" or abs(limit) >= 1 else limit


def _not_allowed(rejects: Rejects) -> Proposal:
    new = list(dict.fromkeys(v for v in rejects.values() if isinstance(v, (str, int))))
    if rejects.field is None or not new:
        return Proposal(PRODUCER)
    listed = [*(rejects.field.allowed or ()), *new[:ALLOWED_MAX]]
    note = f"new values: {', '.join(map(str, new[:ALLOWED_MAX]))}"
    return Proposal(note, rejects.with_field("allowed", listed))


def _missing_field(rejects: Rejects) -> Proposal:
    field = rejects.field
    if field is None or field.name in _identity(rejects.contract):
        return Proposal(f"without it a record has no identity: {PRODUCER}")
    table = field_table(rejects.contract, field.name)
    note = "no longer in every message; let it be optional, if analysts can do without"
    return Proposal(note, without_key(rejects.text, (*table, "required")))


def _wrong_type(rejects: Rejects) -> Proposal:
    seen = Seen(())
    for value in rejects.values():
        seen.add(value)
    kinds = ", ".join(f"{kind} ({count:,})" for kind, count in seen.kinds.most_common())
    field = rejects.field
    if field is not None and field.type == "int64" and set(seen.kinds) == {"float"}:
        return Proposal(f"it is {kinds} now", rejects.with_field("type", "float64"))
    return Proposal(
        f"it is {kinds or 'unreadable'} now, and was {field and field.type}; a column has one "
        f"type: {PRODUCER}, or the new kind gets a path and a field of its own"
    )


def _bad_timestamp(rejects: Rejects) -> Proposal:
    texts = [str(value) for value in rejects.values()]
    for form in get_args(TimestampFormat):
        if texts and all(is_time(text, form) for text in texts):
            note = f"all of them are {form}: devices changed their format, or have two"
            return Proposal(note, rejects.with_field("format", form))
    return Proposal(f"no format reads all of them: {PRODUCER}")


def _future_time(rejects: Rejects) -> Proposal:
    found = (re.search(r"is (\d+) s beyond", detail) for detail in rejects.details)
    most = max((int(match.group(1)) for match in found if match), default=0)
    if not 0 < most <= FUTURE_MAX_SECONDS:
        return Proposal(f"up to {most:,} s ahead: clocks are wrong; {PRODUCER}")
    text = with_key(rejects.text, ("limits",), "max_future_seconds", _round_up(most))
    return Proposal(f"up to {most:,} s ahead of arrival", text)


def _too_large(rejects: Rejects) -> Proposal:
    most = max(map(len, rejects.bodies), default=0)
    if not 0 < most <= BODY_MAX_BYTES:
        return Proposal(f"up to {most:,} bytes, beyond what any contract takes: {PRODUCER}")
    room = min(1 << most.bit_length(), BODY_MAX_BYTES)
    text = with_key(rejects.text, ("limits",), "max_body_bytes", room)
    return Proposal(f"up to {most:,} bytes", text)


def _round_up(seconds: int) -> int:
    return -(-seconds // 60) * 60


def _identity(contract: Contract) -> set[str]:
    return {contract.device, contract.event_time, *contract.record_id}


_RULES: dict[str, Callable[[Rejects], Proposal]] = {
    "out_of_range": _out_of_range,
    "not_allowed": _not_allowed,
    "missing_field": _missing_field,
    "wrong_type": _wrong_type,
    "bad_timestamp": _bad_timestamp,
    "future_time": _future_time,
    "too_large": _too_large,
}
_OF_FIELDS = {*_RULES} - {"future_time", "too_large"}
