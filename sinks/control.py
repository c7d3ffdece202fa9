"""`control/`: what operators and guards have decided, as small JSON objects replaced whole.

They are read once per Delivery at most, and never hold a record.
"""

from __future__ import annotations

from typing import Any

import orjson

from sinks.bucket import Bucket

PREFIX = "control"


def read(bucket: Bucket, name: str) -> dict[str, Any] | None:
    """The decision of this name, None where none was made."""
    data = bucket.find(f"{PREFIX}/{name}.json")
    return None if data is None else orjson.loads(data)


def write(bucket: Bucket, name: str, decision: dict[str, Any]) -> None:
    """Replace the decision of this name."""
    bucket.put(f"{PREFIX}/{name}.json", orjson.dumps(decision))
