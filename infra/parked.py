"""What is parked (`ingest.parked`), as an operator's tools ask for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ingest.parked import Lookout, Parked
from sinks.bucket import Bucket


def parked(bucket: Bucket, prefix: str | None, sqs: Any, queues: Mapping[str, str]) -> Parked:
    """What is parked under a prefix of a bucket, and in the dead-letter queues of these queues."""
    return Lookout(bucket, prefix, sqs, queues).look()


def digest(body: bytes) -> str:
    """What tells a body again, whatever id its message has by now."""
    return hashlib.sha256(body).hexdigest()
