"""The expressions that a table with two string keys needs: key conditions, lists of names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from infra.local.fasttable.refusals import invalid, not_served
from infra.local.fasttable.values import Values

KEYS = "KeyConditionExpression"
LAST = "\U0010ffff"  # behind every text that begins alike, within a sort key's 1,024 bytes

_NAME = r"[A-Za-z0-9_.#-]+"
_VALUE = r":[A-Za-z0-9_]+"
_CONDITION = re.compile(
    rf"(?P<hash>{_NAME})\s*=\s*(?P<pk>{_VALUE})"
    rf"(?:\s+AND\s+(?:(?P<between>{_NAME})\s+BETWEEN\s+(?P<low>{_VALUE})\s+AND\s+(?P<high>{_VALUE})"
    rf"|begins_with\s*\(\s*(?P<begins>{_NAME})\s*,\s*(?P<prefix>{_VALUE})\s*\)"
    rf"|(?P<compared>{_NAME})\s*(?P<how>=|<=|>=|<|>)\s*(?P<bound>{_VALUE})))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Span:
    """Which sort keys of a partition are asked for; without those of `less`, at one of its ends."""

    pk: str
    low: str = ""
    high: str | None = None
    less: str | None = None
    prefix: str = ""

    def has(self, sk: str) -> bool:
        return sk != self.less and sk.startswith(self.prefix)


def span(expression: str, names: Mapping[str, str], values: Values, keys: tuple[str, str]) -> Span:
    """What a KeyConditionExpression asks for. Raises `Refused`."""
    found = _CONDITION.fullmatch(expression.strip())
    if found is None:
        raise not_served(f"the key condition {expression!r}")
    part = found.groupdict()
    sort = part["between"] or part["begins"] or part["compared"]
    wanted = (named(part["hash"], names, KEYS), named(sort, names, KEYS) if sort else keys[1])
    if wanted != keys:
        missed = next(key for key, name in zip(keys, wanted, strict=True) if key != name)
        raise invalid(f"Query condition missed key schema element: {missed}")

    def text(name: str) -> str:
        return text_of(name, values, KEYS)

    pk = text(part["pk"])
    if part["between"]:
        low, high = text(part["low"]), text(part["high"])
        if low > high:
            raise invalid(
                "Invalid KeyConditionExpression: The BETWEEN operator requires upper bound to be "
                "greater than or equal to lower bound"
            )
        return Span(pk, low, high)
    if part["begins"]:
        prefix = text(part["prefix"])
        return Span(pk, prefix, prefix + LAST, prefix=prefix)
    if part["compared"]:
        how, bound = part["how"], text(part["bound"])
        return Span(
            pk,
            low=bound if how in {"=", ">", ">="} else "",
            high=bound if how in {"=", "<", "<="} else None,
            less=bound if how in {"<", ">"} else None,
        )
    return Span(pk)


def projected(expression: str, names: Mapping[str, str]) -> list[str]:
    """The attributes that a ProjectionExpression names."""
    found = [named(name.strip(), names, "ProjectionExpression") for name in expression.split(",")]
    if any(not re.fullmatch(_NAME, name.strip()) for name in expression.split(",")):
        raise not_served(f"the projection {expression!r}")
    return found


def named(name: str, names: Mapping[str, str], kind: str) -> str:
    """The name of an attribute in an expression of some kind. Raises `Refused`."""
    if not name.startswith("#"):
        return name
    if name not in names:
        raise invalid(
            f"Invalid {kind}: An expression attribute name used in the document path is not "
            f"defined; attribute name: {name}"
        )
    return names[name]


def text_of(name: str, values: Values, kind: str) -> str:
    """The text of a value in an expression of some kind. Raises `Refused`."""
    value = values.get(name)
    if value is None:
        raise invalid(
            f"Invalid {kind}: An expression attribute value used in expression is not defined; "
            f"attribute value: {name}"
        )
    if isinstance(value.S, str):
        return value.S
    if kind != KEYS:
        raise not_served(f"a {kind} on what is no text")
    raise invalid(
        "One or more parameter values were invalid: Condition parameter type does not match "
        "schema type"
    )
