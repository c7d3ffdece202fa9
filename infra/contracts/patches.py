"""What could be changed in a contract so that it takes what it rejects, by the reason.

Most rejections are the producer's to mend: then there is no patch, and the note says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, get_args

import msgspec

from infra.contracts import toml_text
from infra.contracts.edits import field_table, with_key, with_lines, without_key
from infra.contracts.naming import snake
from infra.contracts.observed import Kind, Seen, is_time, observe
from transform.contract import Contract, Field, Path, dotted
from transform.contract_file import BODY_MAX_BYTES
from transform.envelope import open_record
from transform.field_types import FieldType
from transform.sender import step
from transform.timestamps import TimestampFormat

ALLOWED_MAX = 20  # values that a patch adds to a list
FUTURE_MAX_SECONDS = 3_600  # beyond, a clock is wrong, not the limit
ABBREVIATION_MIN = 3  # characters: `temp` for `temperature`
LIKENESS_MIN = 0.6  # of two names, by difflib
KINDS: Mapping[FieldType, set[Kind]] = {
    "string": {"string"},
    "int64": {"int"},
    "float64": {"int", "float"},
    "bool": {"bool"},
    "timestamp": {"string", "int", "float"},
}
PRODUCER = "it is the producer's to mend"


@dataclass(frozen=True)
class Rejects:
    """Some rejected messages of one reason and field; `text` is their contract's file."""

    contract: Contract
    text: str
    field: Field | None
    messages: Sequence[bytes]
    details: Sequence[str]

    def values(self) -> Iterator[Any]:
        """What the field held, where a message can be read and has it, and may be looked at."""
        if self.field is None or self.field.privacy:
            return
        for message in self.messages:
            for path in _paths(self.field):
                value = member(message, path)
                if value is not None:
                    yield value
                    break

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
    if rejects.field is not None and rejects.field.privacy:
        return Proposal("its values are hidden by the contract, so nothing is proposed")
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


def opened(body: bytes, contract: Contract) -> list[bytes]:
    """The messages in what was set aside, unwrapped."""
    return open_record(body, None, None, "kinesis", contract.envelope, 1).bodies


def _paths(field: Field) -> Iterator[Path]:
    if field.in_message:
        yield field.path
        yield from (alias.path for alias in field.aliases)


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
    if field is None:
        return Proposal(PRODUCER)
    elsewhere = _called_otherwise(field, rejects)
    if elsewhere is not None:
        places = [_written(path) for path in (*_paths(field), elsewhere)][1:]
        note = f"they have {dotted(elsewhere)}, which could be the same"
        return Proposal(note, rejects.with_field("aliases", places))
    if field.name in rejects.contract.identity:
        return Proposal(f"without it a record has no identity: {PRODUCER}")
    table = field_table(rejects.contract, field.name)
    note = "no longer in every message; let it be optional, if analysts can do without"
    return Proposal(note, without_key(rejects.text, (*table, "required")))


def _called_otherwise(field: Field, rejects: Rejects) -> Path | None:
    """A path that all of these have, that no field has, and whose name is like the field's."""
    if not field.in_message or any(alias.conversion for alias in field.aliases):
        return None
    taken = {path for one in rejects.contract.fields for path in _paths(one)}
    seen = observe(filter(None, map(_object, rejects.messages)))
    likeness = {
        path: _likeness(field, path)
        for path, one in seen.items()
        if path not in taken
        and one.given == len(rejects.messages)
        and set(one.kinds) <= KINDS[field.type]
    }
    best = max(likeness, key=lambda path: likeness[path], default=None)
    return best if best is not None and likeness[best] >= LIKENESS_MIN else None


def _written(path: Path) -> str | list[str | int]:
    """A path as people write it: dotted, where no key holds a dot and none is a place."""
    plain = all(isinstance(key, str) and toml_text.PLAIN_KEY.fullmatch(key) for key in path)
    return dotted(path) if plain else list(path)


def _likeness(field: Field, path: Path) -> float:
    name = snake(str(path[-1]))
    known = (field.name, snake(str(field.path[-1])))
    if set(name.split("_")) & {word for one in known for word in one.split("_")}:
        return 1.0
    if len(name) >= ABBREVIATION_MIN and any(one.startswith(name) for one in known):
        return 1.0
    return max(SequenceMatcher(None, name, one).ratio() for one in known)


def _object(message: bytes) -> dict[str, Any] | None:
    found = member(message, ())
    return found if isinstance(found, dict) else None


def _no_readings(rejects: Rejects) -> Proposal:
    note = "the list is empty; drop such messages, if that is nothing wrong"
    return Proposal(note, with_key(rejects.text, ("explode",), "empty", "drop"))


def _unknown_type(rejects: Rejects) -> Proposal:
    found = (re.search(r"names type '(.*)'$", detail) for detail in rejects.details)
    types = list(dict.fromkeys(match.group(1) for match in found if match))[:ALLOWED_MAX]
    if not types:
        return Proposal(f"they name no type: {PRODUCER}")
    lines = ["[[choose.case]]", f"value = {toml_text.value(types)}"]
    note = f"types without a case: {', '.join(types)}; name its fields, or leave it all of them"
    return Proposal(note, with_lines(rejects.text, lines))


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
    most = max(map(len, rejects.messages), default=0)
    if not 0 < most <= BODY_MAX_BYTES:
        return Proposal(f"up to {most:,} bytes, beyond what any contract takes: {PRODUCER}")
    room = min(1 << most.bit_length(), BODY_MAX_BYTES)
    text = with_key(rejects.text, ("limits",), "max_body_bytes", room)
    return Proposal(f"up to {most:,} bytes", text)


def _round_up(seconds: int) -> int:
    return -(-seconds // 60) * 60


_RULES: dict[str, Callable[[Rejects], Proposal]] = {
    "out_of_range": _out_of_range,
    "not_allowed": _not_allowed,
    "missing_field": _missing_field,
    "wrong_type": _wrong_type,
    "bad_timestamp": _bad_timestamp,
    "future_time": _future_time,
    "too_large": _too_large,
    "no_readings": _no_readings,
    "unknown_type": _unknown_type,
}
_OF_FIELDS = {*_RULES} - {"future_time", "too_large", "no_readings", "unknown_type"}
