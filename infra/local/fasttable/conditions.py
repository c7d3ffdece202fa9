"""The conditions under which Millrace writes one item: a few terms, of which one must be true.

    attribute_not_exists(<key>)
    attribute_not_exists(<key>) OR #name <= :text
    #name = :text

Names of attributes come by `#`, since bare ones may be words that DynamoDB keeps for itself.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

import msgspec
from msgspec import Raw

from infra.local.fasttable.expressions import named, text_of
from infra.local.fasttable.refusals import Refused, invalid, not_served
from infra.local.fasttable.requests import Conditional
from infra.local.fasttable.values import Value, Values, read_values

KIND = "ConditionExpression"
COMPARED: dict[str, Callable[[str, str], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_NAME = r"#?[A-Za-z0-9_]+"
_OR = re.compile(r"\s+OR\s+", re.IGNORECASE)
_TERM = re.compile(
    rf"attribute_not_exists\s*\(\s*(?P<absent>{_NAME})\s*\)"
    rf"|(?P<compared>{_NAME})\s*(?P<how><=|>=|=|<|>)\s*(?P<value>:[A-Za-z0-9_]+)"
)
_fields = msgspec.json.Decoder(dict[str, Raw])
_value = msgspec.json.Decoder(Value)


@dataclass(frozen=True)
class _Term:
    """An attribute is not there, or compares so with a text."""

    name: str
    how: str = ""
    value: str = ""


def check(asked: Conditional, keys: Collection[str], item: bytes | None) -> None:
    """Raises `Refused` unless what is asked holds of the item that is there."""
    values = read_values(asked.ExpressionAttributeValues)
    terms = _terms(asked.ConditionExpression) if asked.ConditionExpression else ()
    _check_used("Names", asked.ExpressionAttributeNames, {term.name for term in terms})
    _check_used("Values", values, {term.value for term in terms})
    meant = [_meant(term, asked, keys, values) for term in terms]
    there = {} if item is None else _fields.decode(item)
    if meant and not any(_holds(term, there) for term in meant):
        raise Refused("ConditionalCheckFailedException", "The conditional request failed")


@lru_cache
def _terms(expression: str) -> tuple[_Term, ...]:
    """The terms as they are written."""
    found = [_TERM.fullmatch(term) for term in _OR.split(expression.strip())]
    terms = [
        _Term(one["absent"] or one["compared"], one["how"] or "", one["value"] or "")
        for one in found
        if one is not None
    ]
    if len(terms) < len(found):
        raise not_served(f"the condition {expression!r}")
    return tuple(terms)


def _meant(term: _Term, asked: Conditional, keys: Collection[str], values: Values) -> _Term:
    """A term with the attribute's name and the text that it is compared with."""
    name = named(term.name, asked.ExpressionAttributeNames, KIND)
    if not term.name.startswith("#") and name not in keys:
        raise not_served(f"a condition on {name!r} without a # before its name")
    return _Term(name, term.how, text_of(term.value, values, KIND) if term.how else "")


def _holds(term: _Term, there: dict[str, Raw]) -> bool:
    """Texts compare by their bytes; nothing else compares with a text, and nothing absent."""
    raw = there.get(term.name)
    if raw is None or not term.how:
        return raw is None and not term.how
    found = _value.decode(raw).S
    return isinstance(found, str) and COMPARED[term.how](found, term.value)


def _check_used(what: str, given: Iterable[str], used: Collection[str]) -> None:
    """DynamoDB takes nothing that no expression uses."""
    unused = sorted(set(given) - set(used))
    if unused and not used:
        raise invalid(f"ExpressionAttribute{what} can only be specified when using expressions")
    if unused:
        raise invalid(
            f"Value provided in ExpressionAttribute{what} unused in expressions: "
            f"keys: {{{', '.join(unused)}}}"
        )
