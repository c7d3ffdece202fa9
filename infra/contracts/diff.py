"""Two contracts compared: each change safe or breaking, for whom, why, and what to do.

There is one rule for each key of a contract (a test holds them complete), so that no change goes
unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from infra.contracts.diff_rules import (
    CONTRACT_RULES,
    EVERYBODY,
    FIELD_RULES,
    PRODUCERS,
    READERS,
    RENAME,
    TELL,
    WRITTEN,
    Rule,
    Says,
    Whom,
    breaks,
    safe,
)
from transform.contract import (
    Alias,
    Choose,
    Contract,
    Explode,
    Field,
    Filter,
    Lookup,
    Where,
    dotted,
)
from transform.envelope import Envelope
from transform.expression import Expression
from transform.units import Conversion


@dataclass(frozen=True)
class Change:
    """One difference between two contracts; `key` is such as `field 'humidity': max`."""

    key: str
    old: Any
    new: Any
    breaking: bool
    whom: tuple[Whom, ...]
    why: str
    todo: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def changes(old: Contract, new: Contract) -> list[Change]:
    """Every change, breaking ones first."""
    found = [*_compared("", old, new, CONTRACT_RULES), *_fields(old, new)]
    if new.version == old.version and any(one.breaking for one in found):
        stays = f"set version = {old.version + 1}"
        says = breaks(READERS, "its rows cannot be told from those of the old rules", stays)
        found.append(_change("version", old.version, new.version, says))
    return sorted(found, key=lambda one: not one.breaking)


def _compared(
    prefix: str, old: Any, new: Any, rules: Mapping[str, Rule | None]
) -> Iterator[Change]:
    """Changes of the keys of two contracts, or of a field in both."""
    for key in fields(old):
        rule, before, after = rules[key.name], getattr(old, key.name), getattr(new, key.name)
        if rule is not None and before != after:
            says = rule(before, after)
            if key.name == "path" and any(alias.path == before for alias in new.aliases):
                says = safe(PRODUCERS, "the old path is an alias of it")
            yield _change(prefix + WRITTEN.get(key.name, key.name), before, after, says)


def _fields(old: Contract, new: Contract) -> Iterator[Change]:
    """Fields that went, came, or have another name, and what changed in those of both."""
    before, after = ({f.name: f for f in contract.fields} for contract in (old, new))
    come = {_place(field): field for name, field in after.items() if name not in before}
    for name, field in before.items():
        fresh = after.get(name) or come.pop(_place(field), None)
        if fresh is None:
            yield _change(f"field {name!r}", name, None, _removed(field))
            continue
        if fresh.name != name:
            says = breaks(READERS, f"its column is called {fresh.name!r} from now on", RENAME)
            yield _change(f"field {name!r}: name", name, fresh.name, says)
        yield from _compared(f"field {fresh.name!r}: ", field, fresh, FIELD_RULES)
    for field in come.values():
        yield _change(f"field {field.name!r}", None, field.name, _added(field))


def _place(field: Field) -> tuple[Any, ...]:
    """What two fields of other names have in common, if one is the other renamed."""
    return (field.path, field.of_reading) if field.in_message else (field.name,)


def _change(key: str, old: Any, new: Any, says: Says) -> Change:
    return Change(key, _told(old), _told(new), says.breaking, says.whom, says.why, says.todo)


def _told(value: Any) -> Any:  # noqa: PLR0911  one line for each kind of value
    """A key's value as JSON and people can take it."""
    match value:
        case Expression():
            return value.text
        case Filter():
            return f"{value.name}: {'drop' if value.drop else 'keep'} {value.expression.text}"
        case Lookup():
            return f"{value.name}: {value.file} by {value.key} {value.digest[:8]}".rstrip()
        case Alias() | Explode():
            return dotted(value.path)
        case Where():
            return value.attribute or dotted(value.path)
        case Choose():
            types = [f"{'/'.join(c.values)}: {', '.join(c.fields)}" for c in value.cases]
            return [_told(value.where), *types, f"otherwise {value.otherwise}"]
        case Envelope():
            return [value.body, *value.unwrap]
        case Conversion():
            return f"times {value.scale:g} plus {value.offset:g}"
        case tuple():
            return [_told(one) for one in value]
    return value


def _added(field: Field) -> Says:
    if field.required:
        return breaks(PRODUCERS, "messages without it are rejected", f"{TELL}; or not `required`")
    return safe(EVERYBODY, "rows from before have no value there, or have it in _rescued")


def _removed(field: Field) -> Says:
    where = f"; what is at {dotted(field.path)} is unknown then" if field.in_message else ""
    return breaks(READERS, f"its column goes{where}", RENAME)
