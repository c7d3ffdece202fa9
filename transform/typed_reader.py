"""The fast reader's shape: a contract as a msgspec Struct.

msgspec decodes and checks a whole message in C against it: types, ranges, allowed values, and that
there is no field the contract does not name. A list whose places are fields is a Struct too.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec

from transform.contract import Explode, Field, Tree, Unknown, Where, leaves, of_list
from transform.exact_reader import READINGS
from transform.field_types import INT64_MAX, INT64_MIN


def struct_of(tree: Tree, unknown: Unknown, prefix: str = "") -> tuple[Any, dict[str, str]]:
    """A msgspec Struct shaped like the contract's messages, and each field's way through it.

    An absent object stands in as an empty one, so that one `attrgetter` reaches every field; a
    `null` object is refused here and read slowly.
    """
    fields: list[Any] = []
    rename: dict[str, str] = {}
    reach: dict[str, str] = {}
    places = of_list(tree)
    for number, (key, branch) in enumerate(_every_place(tree, unknown) if places else tree.items()):
        attribute = f"f{number}"
        rename[attribute] = str(key)
        if isinstance(branch, Gap):
            fields.append((attribute, Any if branch is Gap.DROPPED else None, None))
            continue
        if isinstance(branch, Field):
            reach[branch.name] = prefix + attribute
            fields.append((attribute, *_annotated(branch)))
            continue
        if isinstance(branch, Explode):
            reach[READINGS] = prefix + attribute
            fields.append((attribute, list[msgspec.Raw]))
            continue
        if isinstance(branch, Where):
            fields.append((attribute, msgspec.Raw, msgspec.Raw()))
            continue
        inner, below = struct_of(branch, unknown, f"{prefix}{attribute}.")
        reach.update(below)
        needed = READINGS in below or any(leaf.required for leaf in leaves(branch))
        empty = () if needed else (msgspec.field(default_factory=inner),)
        fields.append((attribute, inner, *empty))
    struct = msgspec.defstruct(
        "Message",
        fields,
        rename=rename,
        forbid_unknown_fields=unknown != "drop",
        kw_only=True,
        array_like=places,
        gc=False,
    )
    return struct, reach


class Gap(Enum):
    """A place of a list that no field claims: what is there is not kept, or there is nothing."""

    DROPPED = "dropped"
    EMPTY = "empty"


def _every_place(tree: Tree, unknown: Unknown) -> Iterator[tuple[int, Any]]:
    """A list's places up to the last that is claimed."""
    gap = Gap.DROPPED if unknown == "drop" else Gap.EMPTY
    for place in range(max(tree) + 1):
        yield place, tree.get(place, gap)


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
