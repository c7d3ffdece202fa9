"""DynamoDB's operations on tables of items: a request's JSON in, an answer's JSON out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from infra.local.fasttable import conditions, expressions, requests
from infra.local.fasttable.items import Found, ReadValues, checked, key_alone, keys_of, writes_of
from infra.local.fasttable.refusals import (
    CORAL,
    Refused,
    invalid,
    not_served,
    unknown_table,
)
from infra.local.fasttable.store import NAME, SUFFIX, Description, Key, Table
from infra.local.fasttable.values import is_plain, read_plain, read_values

BATCH_MAX = 25
PAGE_BYTES = 1 << 20  # of JSON, which is longer than what DynamoDB counts

_fields = msgspec.json.Decoder(dict[str, Raw])
_batch = msgspec.json.Decoder(requests.BatchWriteItem)


class Elsewhere(Exception):
    """The request is about a table that is kept by somebody else."""


class Tables:
    """The tables of one directory. Requests about those `elsewhere` raise `Elsewhere`."""

    def __init__(self, directory: Path, elsewhere: frozenset[str] = frozenset()) -> None:
        self._directory, self._elsewhere = directory, elsewhere
        directory.mkdir(parents=True, exist_ok=True)
        found = (Table.loaded(path) for path in sorted(directory.glob(f"*{SUFFIX}")))
        self._tables = {table.description.name: table for table in found}
        self._operations: dict[str, Callable[[bytes], bytes]] = {
            "BatchWriteItem": self.batch_write_item,
            "PutItem": self.put_item,
            "GetItem": self.get_item,
            "DeleteItem": self.delete_item,
            "Query": self.query,
            "Scan": self.scan,
            "CreateTable": self.create_table,
            "DescribeTable": self.describe_table,
            "DeleteTable": self.delete_table,
            "ListTables": self.list_tables,
        }

    def operate(self, operation: str, body: bytes) -> bytes:
        """The answer to one request. Raises `Refused`, and OSError where a journal cannot grow."""
        act = self._operations.get(operation)
        if act is None:
            raise Refused(
                "UnknownOperationException",
                f"the fast table does not serve {operation}; start with --table emulator",
                space=CORAL,
            )
        return act(body)

    def close(self) -> None:
        for table in self._tables.values():
            table.close()

    def batch_write_item(self, body: bytes) -> bytes:
        asked = _read_batch(body)
        count = sum(map(len, asked.RequestItems.values()))
        if not asked.RequestItems or not 1 <= count <= BATCH_MAX:
            raise invalid(
                "1 validation error detected: Value at 'requestItems' failed to satisfy "
                "constraint: Map value must satisfy constraint: [Member must have length less "
                "than or equal to 25, Member must have length greater than or equal to 1]"
            )
        names = asked.RequestItems.keys()
        if names & self._elsewhere and names - self._elsewhere:
            raise not_served(f"a batch of {sorted(names)}, of which it does not keep all")
        read = _reader(body)
        work = [
            (table, *writes_of(table, writes, read))
            for table, writes in (
                (self._table(name), writes) for name, writes in asked.RequestItems.items()
            )
        ]
        for table, puts, deletes in work:
            table.write(puts, deletes)
        return b'{"UnprocessedItems":{}}'

    def put_item(self, body: bytes) -> bytes:
        asked = requests.read(body, requests.PutItem)
        table = self._table(asked.TableName)
        key, item = checked(table, asked.Item, _reader(body))
        conditions.check(asked, keys_of(table), table.get(key))
        table.write([(key, item)])
        return b"{}"

    def get_item(self, body: bytes) -> bytes:
        asked = requests.read(body, requests.GetItem)
        table = self._table(asked.TableName)
        item = table.get(key_alone(table, asked.Key))
        if item is None:
            return b"{}"
        return b'{"Item":' + _projection(asked)(item) + b"}"

    def delete_item(self, body: bytes) -> bytes:
        asked = requests.read(body, requests.DeleteItem)
        table = self._table(asked.TableName)
        key = key_alone(table, asked.Key)
        conditions.check(asked, keys_of(table), table.get(key))
        table.write([], [key])
        return b"{}"

    def query(self, body: bytes) -> bytes:
        asked = requests.read(body, requests.Query)
        table = self._table(asked.TableName)
        span = expressions.span(
            asked.KeyConditionExpression,
            asked.ExpressionAttributeNames,
            read_values(asked.ExpressionAttributeValues),
            keys_of(table),
        )
        start = _start(table, asked)
        low, high = span.low, span.high
        if start is not None and start[0] != span.pk:
            raise invalid(
                "The provided starting key is outside query boundaries based on provided conditions"
            )
        if start is not None and asked.ScanIndexForward:
            low = max(low, start[1])
        elif start is not None:
            high = start[1] if high is None else min(high, start[1])
        walk = table.query if asked.ScanIndexForward else table.backwards
        found = (
            (key, item)
            for key, item in walk(span.pk, low, high)
            if span.has(key[1]) and key != start
        )
        return _page(table, asked, found)

    def scan(self, body: bytes) -> bytes:
        asked = requests.read(body, requests.Scan)
        table = self._table(asked.TableName)
        start = _start(table, asked)
        try:
            return _page(table, asked, table.scan(start))
        except KeyError:
            raise invalid("The provided starting key is invalid") from None

    def create_table(self, body: bytes) -> bytes:
        asked = requests.read(body, requests.CreateTable)
        name = asked.TableName
        self._require_here(name)
        if not NAME.fullmatch(name):
            raise invalid(
                "TableName must be at least 3 characters long and at most 255 characters long, of "
                "a-z, A-Z, 0-9, '_', '-' and '.'"
            )
        if name in self._tables:
            raise Refused("ResourceInUseException", f"Table already exists: {name}")
        kinds = {
            one.get("AttributeName"): one.get("AttributeType") for one in asked.AttributeDefinitions
        }
        keys = [(one.get("KeyType"), one.get("AttributeName", "")) for one in asked.KeySchema]
        if [kind for kind, _ in keys] != ["HASH", "RANGE"] or {kinds.get(k) for _, k in keys} != {
            "S"
        }:
            raise not_served("a table without two keys, HASH and RANGE, that are strings")
        if asked.GlobalSecondaryIndexes or asked.LocalSecondaryIndexes:
            raise not_served("indexes")
        (_, hash_key), (_, range_key) = keys
        made = Description(name, hash_key, range_key, time.time())
        self._tables[name] = Table.made(made, self._directory)
        return msgspec.json.encode({"TableDescription": _described(self._tables[name])})

    def describe_table(self, body: bytes) -> bytes:
        table = self._table(requests.read(body, requests.AboutTable).TableName)
        return msgspec.json.encode({"Table": _described(table)})

    def delete_table(self, body: bytes) -> bytes:
        table = self._table(requests.read(body, requests.AboutTable).TableName)
        table.drop()
        del self._tables[table.description.name]
        return msgspec.json.encode({"TableDescription": _described(table, "DELETING")})

    def list_tables(self, body: bytes) -> bytes:
        requests.read(body, requests.ListTables)
        return msgspec.json.encode({"TableNames": sorted(self._tables)})

    def _table(self, name: str) -> Table:
        try:
            return self._tables[name]
        except KeyError:
            self._require_here(name)
            raise unknown_table() from None

    def _require_here(self, name: str) -> None:
        if name in self._elsewhere:
            raise Elsewhere


def _reader(body: bytes) -> ReadValues:
    """How the items of a request are read: each value is looked at where that is needed."""
    return read_plain if is_plain(body) else read_values


def _read_batch(body: bytes) -> requests.BatchWriteItem:
    try:
        return _batch.decode(body)
    except msgspec.MsgspecError:
        return requests.read(body, requests.BatchWriteItem)


def _start(table: Table, asked: requests.Scan) -> Key | None:
    if isinstance(asked.ExclusiveStartKey, UnsetType):
        return None
    return key_alone(table, asked.ExclusiveStartKey)


def _page(table: Table, asked: requests.Scan, found: Iterator[Found]) -> bytes:
    if asked.Limit is not UNSET and asked.Limit < 1:
        raise invalid(
            f"1 validation error detected: Value '{asked.Limit}' at 'limit' failed to satisfy "
            "constraint: Member must have value greater than or equal to 1"
        )
    most = asked.Limit if isinstance(asked.Limit, int) else None
    items: list[bytes] = []
    size, last, more = 0, ("", ""), b""
    project = _projection(asked)
    for key, item in found:
        if len(items) == most or size >= PAGE_BYTES:
            more = b',"LastEvaluatedKey":' + table.key_text(last)
            break
        items.append(project(item))
        size, last = size + len(item), key
    count = b"%d" % len(items)
    return (
        b'{"Items":['
        + b",".join(items)
        + b'],"Count":'
        + count
        + b',"ScannedCount":'
        + count
        + more
        + b"}"
    )


def _projection(asked: requests.Read) -> Callable[[bytes], bytes]:
    """What is told of an item."""
    if not asked.ProjectionExpression:
        return lambda item: item
    names = expressions.projected(asked.ProjectionExpression, asked.ExpressionAttributeNames)

    def project(item: bytes) -> bytes:
        fields = _fields.decode(item)
        return msgspec.json.encode({name: fields[name] for name in names if name in fields})

    return project


def _described(table: Table, status: str = "ACTIVE") -> Mapping[str, Any]:
    said = table.description
    keys = ((said.hash_key, "HASH"), (said.range_key, "RANGE"))
    return {
        "TableName": said.name,
        "TableStatus": status,
        "TableArn": f"arn:aws:dynamodb:us-east-1:000000000000:table/{said.name}",
        "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in keys],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
        "CreationDateTime": said.created,
        "ItemCount": table.count,
        "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
    }
