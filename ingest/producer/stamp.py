"""Record ids made at the source."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

FIELDS = ("origin", "boot", "seq")


def _boot() -> str:
    return secrets.token_hex(8)


class Stamp:
    """Adds to a record what makes it one of its kind: origin, boot id and sequence number.

    The number counts from 0 in each process, and the boot id is another in each: a counter alone
    merges readings, because it begins again. A record is stamped once, before it is put; what is
    sent again, from memory or from the spill, are the same bytes. A contract names the fields in
    `identity.record_id`, and each repeat is then one row.

    Safe to share by threads. `fields` are the three names; `boot` makes the boot id.
    """

    def __init__(
        self,
        origin: str,
        *,
        fields: tuple[str, str, str] = FIELDS,
        boot: Callable[[], str] = _boot,
    ) -> None:
        self.origin = origin
        self.boot = boot()
        self._fields = fields
        self._numbers = count()
        self._lock = threading.Lock()

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record with its id. Raises `ValueError` where it has one of the fields already."""
        taken = [name for name in self._fields if name in record]
        if taken:
            raise ValueError(f"the record has {', '.join(taken)} already: give Stamp other fields")
        with self._lock:
            number = next(self._numbers)
        return {**record, **dict(zip(self._fields, (self.origin, self.boot, number), strict=True))}
