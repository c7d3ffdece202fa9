"""A contract as a page for people: producers see what to send, analysts what they get."""

from __future__ import annotations

import json
from collections.abc import Iterator

from transform.contract import Contract, Field, Where, dotted
from transform.timestamps import EPOCH, MICROSECOND


def markdown(contract: Contract) -> str:
    """The page."""
    parts = [
        f"# {contract.name} {contract.version}",
        contract.description,
        _identity(contract),
        "## Fields",
        _table(contract),
        "## Limits",
        _limits(contract),
    ]
    if contract.examples:
        parts += ["## Examples", *(_example(one.name, one.message) for one in contract.examples)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _identity(contract: Contract) -> str:
    same = (
        "Two messages with equal " + ", ".join(f"`{name}`" for name in contract.record_id)
        if contract.record_id
        else "No two messages"
    )
    return (
        f"A message is of the device in `{contract.device}`, at the moment in "
        f"`{contract.event_time}`. {same} are the same."
    )


def _table(contract: Contract) -> str:
    rows = ["| field | where from | type | rules | unit | about |", "|---|---|---|---|---|---|"]
    for field in contract.fields:
        cells = (
            f"`{field.name}`",
            _source(field),
            f"{field.type}, {field.format}" if field.format else field.type,
            _rules(field),
            field.unit,
            field.description,
        )
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(rows)


def _source(field: Field) -> str:
    """Where a field's value comes from."""
    if field.attribute:
        return f"attribute `{field.attribute}`"
    if field.expression is not None:
        return f"`{field.expression.text}`"
    if field.lookup:
        return f"`{field.column}` of lookup {field.lookup}"
    paths = (field.path, *(alias.path for alias in field.aliases))
    told = ", or ".join(f"`{dotted(path)}`" for path in paths)
    return f"{told} of a reading" if field.of_reading else told


def _rules(field: Field) -> str:
    rules = ["required" if field.required else "optional"]
    if field.privacy:
        rules.append({"redact": "hidden", "hash": "hashed"}[field.privacy])
    if field.default is not None:
        rules.append(f"else `{_shown(field)}`")
    if field.minimum is not None:
        rules.append(f"at least {field.minimum:g}")
    if field.maximum is not None:
        rules.append(f"at most {field.maximum:g}")
    if field.allowed is not None:
        rules.append("one of " + ", ".join(f"`{value}`" for value in field.allowed))
    return ", ".join(rules)


def _shown(field: Field) -> str:
    if field.type == "timestamp" and isinstance(field.default, int):
        return (EPOCH + field.default * MICROSECOND).isoformat()
    return json.dumps(field.default, ensure_ascii=False)


def _limits(contract: Contract) -> str:
    return "\n".join(f"- {rule}" for rule in (*_message_rules(contract), *_row_rules(contract)))


def _message_rules(contract: Contract) -> Iterator[str]:
    """What a message must be, and what is made of it."""
    yield f"A message is at most {contract.max_body_bytes:,} bytes of JSON."
    yield (
        f"`{contract.event_time}` lies at most {contract.max_future_seconds:,} s ahead of its "
        "arrival."
    )
    if contract.max_lateness_seconds is not None:
        yield f"Beyond {contract.max_lateness_seconds:,} s behind it, a row is marked late."
    if contract.envelope.body == "ndjson":
        yield "Each line of a body is a message."
    if contract.envelope.unwrap:
        yield f"Messages may be wrapped: {', '.join(contract.envelope.unwrap)}."
    if contract.schema is not None:
        yield f"A message may name its version of this contract: {_where(contract.schema)}."
    if contract.choose is not None:
        yield f"{_where(contract.choose.where)} says which type a message is of:"
        for case in contract.choose.cases:
            types = ", ".join(f"`{value}`" for value in case.values)
            yield f"{types}: {', '.join(case.fields)}."
        yield f"Messages of other types: {contract.choose.otherwise}."
    if contract.explode is not None:
        empty = {"drop": "dropped", "reject": "rejected"}[contract.explode.empty]
        path = dotted(contract.explode.path)
        yield f"Each element of `{path}` becomes a row; a message without any is {empty}."
    then = {"rescue": "kept in `_rescued`", "drop": "left out", "reject": "a reason to reject"}
    yield f"Fields that are not named here are {then[contract.unknown]}."


def _row_rules(contract: Contract) -> Iterator[str]:
    """What becomes of rows."""
    for rule in contract.filters:
        verb = "dropped" if rule.drop else "kept"
        yield f"Rows are {verb} where `{rule.expression.text}` ({rule.name})."
    if contract.sample is not None:
        yield f"Of all records {contract.sample:.3%} are kept."
    which = f" where `{contract.hot_when.text}`" if contract.hot_when else ""
    fields = ""
    if contract.hot_fields is not None:
        fields = f", with {', '.join(field.name for field in contract.hot_columns)}"
    kept = "for ever"
    if contract.hot_ttl_seconds is not None:
        kept = f"for {contract.hot_ttl_seconds // 86_400} days"
    what = "Each device's latest reading is" if contract.latest else "Readings are"
    yield f"{what} kept hot {kept}{which}{fields}."


def _where(where: Where) -> str:
    return f"attribute `{where.attribute}`" if where.attribute else f"`{dotted(where.path)}`"


def _example(name: str, message: bytes) -> str:
    return f"{name}:\n\n```json\n{message.decode(errors='replace').strip()}\n```"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
