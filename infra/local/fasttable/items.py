"""What a table takes: items and keys, checked as DynamoDB checks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import UNSET, Raw

from infra.local.fasttable import requests
from infra.local.fasttable.refusals import invalid, invalid_values
from infra.local.fasttable.store import Key, Table
from infra.local.fasttable.values import (
    ITEM_BYTES_MAX,
    Plain,
    Value,
    check_size,
    kind_of,
    read_values,
)

HASH_BYTES_MAX, RANGE_BYTES_MAX = 2_048, 1_024
SURELY_FITS = 256  # characters of a key, of four bytes at most
MISMATCH = "The provided key element does not match the schema"

Found = tuple[Key, bytes]
ReadValues = Callable[[bytes], Mapping[str, Plain | Value]]


def writes_of(
    table: Table, writes: list[requests.Write], read: ReadValues
) -> tuple[list[Found], list[Key]]:
    """What is put and what is deleted by a batch, each key once. Raises `Refused`."""
    puts, deletes = [], []
    for write in writes:
        put, delete = write.PutRequest, write.DeleteRequest
        if isinstance(put, requests.Put) and delete is UNSET:
            puts.append(checked(table, put.Item, read, batch=True))
        elif isinstance(delete, requests.Delete) and put is UNSET:
            deletes.append(key_alone(table, delete.Key))
        else:
            how = "is empty" if put is UNSET else "has more than one datatypes set"
            raise invalid(f"Supplied WriteRequest {how}, must contain exactly one of the requests")
    keys = {key for key, _ in puts}
    keys.update(deletes)
    if len(keys) < len(writes):
        raise invalid("Provided list of item keys contains duplicates")
    return puts, deletes


def checked(table: Table, raw: Raw, read: ReadValues, *, batch: bool = False) -> Found:
    """An item as it is kept, on one line, and its key, if DynamoDB would take it at all."""
    item = bytes(raw)
    values = read(item)
    if len(item) > ITEM_BYTES_MAX:
        check_size(read_values(item))
    if read is read_values and b"\n" in item:
        item = item.replace(b"\n", b" ")  # between tokens: within strings it is escaped
    return _key(table, values, batch=batch), item


def key_alone(table: Table, raw: Raw) -> Key:
    """A key that comes without an item. Raises `Refused`."""
    values = read_values(raw)
    if values.keys() != set(keys_of(table)):
        raise invalid(MISMATCH)
    return _key(table, values, batch=True)


def _key(table: Table, values: Mapping[str, Plain | Value], *, batch: bool) -> Key:
    """The key in an item. Raises `Refused` in the words of a batch, or of one item alone."""
    hash_key, range_key = keys_of(table)
    try:
        pk, sk = values[hash_key].S, values[range_key].S
        if pk and sk and len(pk) < SURELY_FITS and len(sk) < SURELY_FITS:
            return pk, sk
    except KeyError:
        pass
    pk = _text(values, hash_key, batch=batch)
    sk = _text(values, range_key, batch=batch)
    if len(pk.encode()) > HASH_BYTES_MAX:
        raise invalid_values(
            f"Size of hashkey has exceeded the maximum size limit of{HASH_BYTES_MAX} bytes"
        )
    if len(sk.encode()) > RANGE_BYTES_MAX:
        raise invalid_values(
            f"Aggregated size of all range keys has exceeded the size limit of {RANGE_BYTES_MAX} "
            "bytes"
        )
    return pk, sk


def _text(values: Mapping[str, Plain | Value], name: str, *, batch: bool) -> str:
    """One key attribute's text."""
    value = values.get(name)
    if value is not None and isinstance(value.S, str):
        if not value.S:
            raise invalid(
                "One or more parameter values are not valid. The AttributeValue for a key "
                f"attribute cannot contain an empty string value. Key: {name}"
            )
        return value.S
    if batch:
        raise invalid(MISMATCH)
    if value is None:
        raise invalid_values(f"Missing the key {name} in the item")
    raise invalid_values(f"Type mismatch for key {name} expected: S actual: {kind_of(value)}")


def keys_of(table: Table) -> tuple[str, str]:
    """The names of a table's keys."""
    return table.description.hash_key, table.description.range_key
