"""The file job for one record, in plain Python: what peers run that work record by record."""

from datetime import UTC, datetime, timedelta
from typing import Any

from job import ALLOWED, INTEGERS, NUMBERS, PATHS, RANGES, STRINGS, TTL_SECONDS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REQUIRED = ("device_id", "event_time", "sequence", "temperature")


def row_of(message: dict[str, Any]) -> dict[str, Any] | None:
    """The message's row, or nothing where a value is out of its range or list."""
    row = {name: _value(message, path) for name, path in PATHS.items()}
    for name, (low, high) in RANGES.items():
        value = row[name]
        if value is not None and not low <= value <= high:
            return None
        if value is not None and name not in INTEGERS:
            row[name] = float(value)
    if row["status"] not in ALLOWED or any(row[name] is None for name in REQUIRED):
        return None
    row["event_time"] = EPOCH + timedelta(milliseconds=row["event_time"])
    return row


def item_of(row: dict[str, Any]) -> dict[str, Any]:
    """The row's item, in DynamoDB's JSON."""
    moment = row["event_time"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    expires = int(row["event_time"].timestamp()) + TTL_SECONDS
    item: dict[str, Any] = {
        "pk": {"S": f"{row['device_id']}#{moment[:10]}"},
        "sk": {"S": f"{moment}#{row['sequence']}"},
        "expires_at": {"N": str(expires)},
    }
    for name, value in row.items():
        if name in STRINGS:
            item[name] = {"S": value}
        elif name in NUMBERS:
            item[name] = {"N": repr(value)}
        else:
            item[name] = {"S": moment} if name == "event_time" else {"BOOL": value}
    return item


def _value(message: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = message
    for key in path:
        value = value[key]
    return value
