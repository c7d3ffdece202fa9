"""Who sent what was rejected: the device that an element names although it could not be delivered.

For people and events only: no verdict and no identity depends on it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from transform.contract import Contract, Field, Path
from transform.exact_reader import fits_key

UNOPENED = ("open", "envelope")
"""Steps whose rejects are not messages: a killer must not be opened, an aggregate is many."""


def sender(body: bytes, contract: Contract) -> str | None:
    """The device in a message, if one can be made out; None where the JSON cannot be read."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    field = contract.field(contract.device)
    found = (_at(value, path) for path in (field.path, *(a.path for a in field.aliases)) if path)
    return next((name for name in found if name is not None), None)


def _at(value: Any, path: Path) -> str | None:
    for key in path:
        value = step(value, key)
    readable = isinstance(value, str) and value.isprintable() and fits_key(value)
    return value if readable else None


def step(value: Any, key: str | int) -> Any:
    """What is at a key of an object or a place of a list; None where there is no such."""
    if isinstance(key, int):
        return value[key] if isinstance(value, list) and key < len(value) else None
    return value.get(key) if isinstance(value, dict) else None


def sender_of_reject(step: str, body: bytes, contract: Contract) -> str | None:
    """The device of an element that this step rejected; what was not opened is not opened now."""
    return None if step in UNOPENED else sender(body, contract)


def may_be_told(spec: Field) -> bool:
    """Whether a field's values may leave raw and quarantine: those kept private never do."""
    return not spec.privacy


def detail_to_tell(detail: str, field: str | None, contract: Contract) -> str:
    """A rejection's detail, which may hold the value it is about; empty where that is private."""
    known = {spec.name: spec for spec in contract.fields}
    return detail if field not in known or may_be_told(known[field]) else ""
