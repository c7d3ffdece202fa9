"""A contract as a page for people: producers see what to send, analysts what they get."""

from __future__ import annotations

import json

from transform.contract import Contract, Field, dotted
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
    rows = ["| field | in the message | type | rules | unit | about |", "|---|---|---|---|---|---|"]
    for field in contract.fields:
        cells = (
            f"`{field.name}`",
            "`" + dotted(field.path) + "`",
            f"{field.type}, {field.format}" if field.format else field.type,
            _rules(field),
            field.unit,
            field.description,
        )
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(rows)


def _rules(field: Field) -> str:
    rules = ["required" if field.required else "optional"]
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
    hot = "for ever"
    if contract.hot_ttl_seconds is not None:
        hot = f"for {contract.hot_ttl_seconds // 86_400} days"
    return "\n".join(
        (
            f"- A message is at most {contract.max_body_bytes:,} bytes of JSON.",
            f"- `{contract.event_time}` lies at most {contract.max_future_seconds:,} s ahead of "
            "its arrival.",
            f"- Hot readings are kept {hot}.",
        )
    )


def _example(name: str, message: bytes) -> str:
    return f"{name}:\n\n```json\n{message.decode(errors='replace').strip()}\n```"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
