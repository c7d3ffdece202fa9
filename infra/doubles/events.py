"""An EventBridge bus in memory: entries are taken one by one, and what was put can be looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.doubles.world import Call, World, refused

ENTRIES_MAX = 10  # PutEvents: entries a call
ENTRY_BYTES_MAX = 262_144  # of an entry: source, detail type and detail


@dataclass
class EventBridge:
    """A client of the account whose buses are `buses`, each with the entries it took."""

    world: World
    buses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _taken: int = 0

    def create_event_bus(self, *, Name: str) -> dict[str, Any]:  # noqa: N803  as boto3
        call = Call("events", "CreateEventBus", Name)

        def act() -> dict[str, Any]:
            if Name in self.buses:
                raise refused(call, "ResourceAlreadyExistsException")
            self.buses[Name] = []
            return {"EventBusArn": f"arn:aws:events:us-east-1:123456789012:event-bus/{Name}"}

        return self.world.effect(call, act)

    def put_events(self, *, Entries: Sequence[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        """Each entry is taken or not for itself; the buses must be there."""
        call = Call("events", "PutEvents", str(len(Entries)))

        def act() -> dict[str, Any]:
            if not 1 <= len(Entries) <= ENTRIES_MAX:
                raise refused(call, "ValidationException")
            if not all(entry["EventBusName"] in self.buses for entry in Entries):
                raise refused(call, "ResourceNotFoundException")
            answers = [self._put(call, number, entry) for number, entry in enumerate(Entries)]
            failed = sum("ErrorCode" in answer for answer in answers)
            return {"FailedEntryCount": failed, "Entries": answers}

        return self.world.effect(call, act)

    def _put(self, call: Call, number: int, entry: dict[str, Any]) -> dict[str, str]:
        missing = [name for name in ("Source", "DetailType", "Detail") if not entry.get(name)]
        if missing:
            return _not_taken("InvalidArgument", f"Parameter {missing[0]} is not valid")
        if not _is_object(entry["Detail"]):
            return _not_taken("MalformedDetail", "Detail is malformed.")
        if _size(entry) > ENTRY_BYTES_MAX:
            return _not_taken("InvalidArgument", "the entry is too large")
        if not self.world.takes(call, (entry["Detail"], str(number))):
            return _not_taken("InternalFailure", "try again")
        self._taken += 1
        self.buses[entry["EventBusName"]].append(entry)
        return {"EventId": f"event-{self._taken}"}


def _not_taken(code: str, message: str) -> dict[str, str]:
    return {"ErrorCode": code, "ErrorMessage": message}


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _size(entry: dict[str, Any]) -> int:
    return sum(len(entry[name].encode()) for name in ("Source", "DetailType", "Detail"))
