"""What a change of each key of a contract means: one rule a key, `None` where it means nothing.

Breaking for producers is what rejects a message that was good; for analysts and hot readers, what
makes a column or an attribute go, or changes its type or its meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from transform.contract import Alias, Choose, Explode, Filter, Lookup
from transform.envelope import Envelope
from transform.expression import Expression

Whom = Literal["producers", "analysts", "hot readers"]

EVERYBODY: tuple[Whom, ...] = ("producers", "analysts", "hot readers")
PRODUCERS: tuple[Whom, ...] = ("producers",)
READERS: tuple[Whom, ...] = ("analysts", "hot readers")
ANALYSTS: tuple[Whom, ...] = ("analysts",)
HOT: tuple[Whom, ...] = ("hot readers",)

RAISE = "raise `version`, and tell them from when on"
RENAME = "give the new contract a new `name`, with a stream of its own"
TELL = "raise `version` once no producer sends the old way any more"


@dataclass(frozen=True)
class Says:
    """What a rule says of a change."""

    breaking: bool
    whom: tuple[Whom, ...]
    why: str
    todo: str


Rule = Callable[[Any, Any], Says]
"""What it means that a key's value was this and is now that; `None` where it was not given."""


def breaks(whom: tuple[Whom, ...], why: str, todo: str) -> Says:
    return Says(breaking=True, whom=whom, why=why, todo=todo)


def safe(whom: tuple[Whom, ...], why: str) -> Says:
    return Says(breaking=False, whom=whom, why=why, todo="")


def always(says: Says) -> Rule:
    return lambda _old, _new: says


def _version(old: int, new: int) -> Says:
    if new < old:
        return breaks(READERS, "rows of the older rules would win over newer ones", "raise it")
    return safe(READERS, "rows say by _version which rules read them")


def _smaller(what: str, *, whom: tuple[Whom, ...] = PRODUCERS) -> Rule:
    """Of a largest: a smaller one breaks. None is without end."""

    def rule(old: float | None, new: float | None) -> Says:
        if new is not None and (old is None or new < old):
            return breaks(whom, f"{what} beyond {new} {_THEN[whom]}", TELL)
        return safe(whom, f"{what} may be larger from now on")

    return rule


def _larger(what: str) -> Rule:
    """Of a least: a larger one breaks. None is without end."""

    def rule(old: float | None, new: float | None) -> Says:
        if new is not None and (old is None or new > old):
            return breaks(PRODUCERS, f"{what} under {new} are rejected", TELL)
        return safe(PRODUCERS, f"{what} may be smaller from now on")

    return rule


def _allowed(old: Collection[Any] | None, new: Collection[Any] | None) -> Says:
    if new is None:
        return safe(EVERYBODY, "any value may come from now on")
    if old is None:
        return breaks(PRODUCERS, "values that are not listed are rejected", TELL)
    gone = [value for value in old if value not in new]
    if gone:
        listed = ", ".join(map(str, gone))
        return breaks(PRODUCERS, f"these are rejected: {listed}", TELL)
    return safe(EVERYBODY, "new values may come from now on")


def _required(old: bool, _new: bool) -> Says:  # noqa: FBT001  values of the key
    if old:
        return breaks(READERS, "it may be null from now on", f"{RAISE}, or give it a `default`")
    return breaks(PRODUCERS, "messages without it are rejected", TELL)


def _default(old: Any, new: Any) -> Says:
    if new is None:
        return breaks(READERS, f"it may be null from now on, where it was {old}", RAISE)
    if old is None:
        return safe(READERS, f"absent is {new} from now on; older rows keep null")
    return breaks(READERS, f"absent is {new} from now on, and was {old}", RAISE)


def _aliases(old: Collection[Alias], new: Collection[Alias]) -> Says:
    if any(alias not in new for alias in old):
        return breaks(PRODUCERS, "what is at an old path is not read any more", TELL)
    return safe(PRODUCERS, "it may be at more paths from now on")


def _privacy(old: str, _new: str) -> Says:
    if old:
        return breaks(READERS, "what was hidden is shown from now on", "ask who owns the values")
    return breaks(READERS, "its values are hidden from now on; older rows keep them", RAISE)


def _unit(old: str, new: str) -> Says:
    if not old:
        return safe(READERS, "it says what the numbers were all along")
    if not new:
        return safe(READERS, "the unit is not told any more")
    return breaks(READERS, f"numbers are in {new} from now on, and were in {old}", RENAME)


def _unknown(old: str, new: str) -> Says:
    if new == "reject":
        return breaks(PRODUCERS, "messages with fields that are not named are rejected", TELL)
    if old == "rescue":
        return breaks(ANALYSTS, "fields that are not named are nowhere from now on", RAISE)
    return safe(EVERYBODY, f"fields that are not named: {new}")


def _envelope(old: Envelope, new: Envelope) -> Says:
    if old.body == new.body and set(old.unwrap) <= set(new.unwrap):
        return safe(PRODUCERS, "messages may be wrapped in more ways from now on")
    return breaks(PRODUCERS, "messages as they were packed are taken apart otherwise", TELL)


def _choose(old: Choose | None, new: Choose | None) -> Says:
    if old is None or new is None:
        return breaks(PRODUCERS, "which fields a message must have is decided otherwise", TELL)
    fields = [{v: case.fields for case in one.cases for v in case.values} for one in (old, new)]
    if old.where != new.where or any(fields[1].get(v) != had for v, had in fields[0].items()):
        return breaks(PRODUCERS, "messages of a type have other fields, or no case", TELL)
    if old.otherwise != new.otherwise:
        then = {"reject": "rejected", "drop": "dropped, their bytes in raw alone"}[new.otherwise]
        return breaks(PRODUCERS, f"messages of other types are {then}", TELL)
    return safe(EVERYBODY, "messages of more types may come from now on")


def _explode(old: Explode | None, new: Explode | None) -> Says:
    if old is None or new is None or old.path != new.path:
        return breaks(EVERYBODY, "a row is another thing: a message, or a reading", RENAME)
    if new.empty == "reject":
        return breaks(PRODUCERS, "messages with an empty list are rejected", TELL)
    return safe(PRODUCERS, "messages with an empty list are dropped, not rejected")


def _lookups(old: Collection[Lookup], new: Collection[Lookup]) -> Says:
    tables = [{one.name: (one.file, one.on, one.key) for one in every} for every in (old, new)]
    if any(tables[1].get(name) != had for name, had in tables[0].items()):
        return breaks(READERS, "values are looked up otherwise, or not at all", RAISE)
    return safe(READERS, "values are those of the new table from now on")


def _filters(old: Collection[Filter], new: Collection[Filter]) -> Says:
    if any(rule not in old for rule in new):
        return breaks(READERS, "rows are dropped that were kept", RAISE)
    return safe(READERS, "rows may come that were dropped")


def _hot_when(_old: Expression | None, new: Expression | None) -> Says:
    if new is None:
        return safe(HOT, "every row is kept hot from now on")
    return breaks(HOT, "other rows are kept hot", RAISE)


def _hot_fields(old: Collection[str] | None, new: Collection[str] | None) -> Says:
    if new is not None and (old is None or any(name not in new for name in old)):
        return breaks(HOT, "items lack fields that they had", RAISE)
    return safe(HOT, "items have more fields from now on")


def _sample(old: float | None, new: float | None) -> Says:
    if new is not None and (old is None or new < old):
        return breaks(READERS, f"only {new:g} of all records are kept", RAISE)
    return safe(READERS, "more records are kept from now on")


_MADE = breaks(READERS, "the same message gives another value", RENAME)
_THEN = {PRODUCERS: "are rejected", HOT: "are gone from the hot table"}
_COUNTED = safe(ANALYSTS, "completeness is counted otherwise from now on; no row changes")
_IDENTITY = breaks(EVERYBODY, "records get other ids, so old and new ones never repeat", RENAME)

CONTRACT_RULES: Mapping[str, Rule | None] = {
    "name": always(breaks(EVERYBODY, "it is another pipeline: stream, prefix, table", "keep it")),
    "version": _version,
    "description": None,
    "fields": None,  # each is compared by FIELD_RULES
    "device": always(breaks(EVERYBODY, "hot readings are found under another id", RENAME)),
    "event_time": always(breaks(EVERYBODY, "hot readings are found at other times", RENAME)),
    "record_id": always(_IDENTITY),
    "max_body_bytes": _smaller("messages"),
    "max_future_seconds": _smaller("event times ahead of arrival"),
    "hot_ttl_seconds": _smaller("ages in seconds", whom=HOT),
    "source": None,
    "max_lateness_seconds": always(safe(ANALYSTS, "_late is judged by another limit; no row goes")),
    "unknown": _unknown,
    "envelope": _envelope,
    "schema": always(breaks(PRODUCERS, "versions that messages name are found otherwise", TELL)),
    "choose": _choose,
    "explode": _explode,
    "lookups": _lookups,
    "filters": _filters,
    "sample": _sample,
    "hot_when": _hot_when,
    "hot_fields": _hot_fields,
    "hot_layout": always(breaks(HOT, "items are of other things, under other keys", RAISE)),
    "sequence": always(_COUNTED),
    "boot": always(_COUNTED),
    "examples": None,  # a test of the rules, no rule
}

FIELD_RULES: Mapping[str, Rule | None] = {
    "name": None,  # told as a rename
    "path": always(breaks(PRODUCERS, "what is at the old path is not read any more", TELL)),
    "type": always(breaks(EVERYBODY, "the column and its values are of another type", RENAME)),
    "format": always(breaks(PRODUCERS, "times as they were written are rejected, or others", TELL)),
    "required": _required,
    "default": _default,
    "minimum": _larger("values"),
    "maximum": _smaller("values"),
    "allowed": _allowed,
    "description": None,
    "unit": _unit,
    "aliases": _aliases,
    "conversion": always(_MADE),
    "attribute": always(breaks(PRODUCERS, "another attribute is read, or none", TELL)),
    "expression": always(_MADE),
    "lookup": always(_MADE),
    "column": always(_MADE),
    "of_reading": always(breaks(PRODUCERS, "what is at the old place is not read any more", TELL)),
    "privacy": _privacy,
}

WRITTEN: Mapping[str, str] = {
    "device": "identity.device",
    "event_time": "identity.event_time",
    "record_id": "identity.record_id",
    "sequence": "identity.sequence",
    "boot": "identity.boot",
    "max_body_bytes": "limits.max_body_bytes",
    "max_future_seconds": "limits.max_future_seconds",
    "hot_ttl_seconds": "hot.ttl_days, in seconds",
    "max_lateness_seconds": "limits.max_lateness_seconds",
    "lookups": "lookup",
    "filters": "filter",
    "hot_when": "hot.when",
    "hot_fields": "hot.fields",
    "hot_layout": "hot.layout",
    "minimum": "min",
    "maximum": "max",
    "conversion": "from_unit",
    "expression": "expr",
    "of_reading": "of",
}
"""Keys that are called otherwise in the file."""
