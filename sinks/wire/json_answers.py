"""Answers of services that speak JSON: what they say, and what their errors mean."""

from __future__ import annotations

from typing import Any

import orjson

from sinks.errors import of_answer
from sinks.wire.answers import Answer


def checked(answer: Answer, what: str) -> dict[str, Any]:
    """What a good answer says; nothing where it is no JSON object. Raises what an error means."""
    said = _object(answer.body)
    if answer.good:
        return said
    code = said.get("__type", str(answer.status))
    code = str(code).partition(":")[0].rpartition("#")[2]
    message = said.get("message", said.get("Message", ""))
    raise of_answer(what, answer.status, code, str(message))


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
