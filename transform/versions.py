"""Versions of one contract side by side: what lets their rows stand in one table."""

from __future__ import annotations

from transform.contract import Contract


def clash(one: Contract, other: Contract) -> str | None:
    """Why rows of two versions cannot stand in one table, None where they can.

    What a field is called is what it is: one name with two types, or two units, would be two things
    in a column. And what makes two records the same must not depend on who wrote them.
    """
    for name in ("name", "device", "event_time", "record_id"):
        a, b = getattr(one, name), getattr(other, name)
        if a != b:
            return f"{name} is {_shown(a)} in version {one.version}, {_shown(b)} in {other.version}"
    theirs = {field.name: field for field in other.fields}
    for field in one.fields:
        if field.name not in theirs:
            continue
        for key in ("type", "unit", "privacy"):
            a, b = getattr(field, key), getattr(theirs[field.name], key)
            if a != b:
                return (
                    f"field {field.name!r} has {key} {_shown(a)} in version {one.version}, "
                    f"{_shown(b)} in {other.version}"
                )
    return None


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) or "none"
