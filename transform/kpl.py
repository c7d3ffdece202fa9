"""KPL aggregates: many messages in one Kinesis record.

An aggregate is `F3 89 9A C2`, a protobuf message and the MD5 of that message (see
`aggregation-format.md` of awslabs/amazon-kinesis-producer). Bytes that are too short, have another
magic or another digest are not an aggregate: they are a plain record, and stay whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from transform.records import Rejection

KPL_MAGIC = b"\xf3\x89\x9a\xc2"
MD5_BYTES = 16
KPL_OVERHEAD_BYTES = len(KPL_MAGIC) + MD5_BYTES
PARTITION_KEY_MAX_CHARACTERS = 256  # Kinesis PutRecord; beyond, each member would repeat a huge one
MEMBERS_ALWAYS = 32  # in an aggregate of any size; 7,500 such records fill Lambda's 6 MB event
MEMBER_BYTES_MIN = 20  # of an aggregate: `{"d":"a","t":0}` is 15, its entry's overhead 6
CELLS_MAX = 40_000_000  # of one aggregate, members by fields: some 7 s and 700 MB of Transform
ENTRY_OVERHEAD_BYTES = 24  # per user record at most: tags, lengths and index of a protobuf entry


def is_aggregate(body: bytes) -> bool:
    """Whether these bytes are a KPL aggregate: magic first, and then the digest must hold."""
    return (
        body.startswith(KPL_MAGIC)
        and len(body) >= KPL_OVERHEAD_BYTES
        and hashlib.md5(body[4:-MD5_BYTES], usedforsecurity=False).digest() == body[-MD5_BYTES:]
    )


def members_of(body: bytes, fields: int = 1) -> list[tuple[str, bytes]] | Rejection:
    """An aggregate's messages, or why it is set aside whole. They are counted first, then made."""
    try:
        message = _parsed(body)
        count, most = len(message.records), members_max(len(body), fields)
        if count > most:
            detail = f"{count} messages in {len(body)} bytes; at most {most} are opened"
            return Rejection("envelope", "too_many_elements", detail)
        return list(_pairs(message))
    except ValueError as error:
        return Rejection("envelope", "malformed_aggregate", str(error))


def members_max(size: int, fields: int = 1) -> int:
    """How many messages an aggregate of `size` bytes may hold and still be opened.

    An aggregate whose every message has a device and a time never has more, but under a contract of
    hundreds of fields. One that is all empty messages would be 700,000 elements in a 6 MB event,
    each with a row that leads back to it.
    """
    return min(max(MEMBERS_ALWAYS, size // MEMBER_BYTES_MIN), CELLS_MAX // fields)


def deaggregate(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Partition key and data of each user record. `body` must be an aggregate.

    Raises `ValueError` where the content contradicts the format; nothing is half opened, because
    callers take the whole list.
    """
    return _pairs(_parsed(body))


def _parsed(body: bytes) -> Any:
    """The protobuf message of an aggregate. Raises `ValueError`."""
    message = _AGGREGATE()
    try:
        message.ParseFromString(body[4:-MD5_BYTES])
    except DecodeError as error:
        raise ValueError(f"the aggregate is not readable: {error}") from None
    if not message.IsInitialized():
        raise ValueError("the aggregate lacks a field that the format requires")
    if not message.records:
        raise ValueError("the aggregate holds no record")
    return message


def _pairs(message: Any) -> Iterator[tuple[str, bytes]]:
    """Partition key and data of each record of an aggregate. Raises `ValueError`."""
    try:
        keys = list(message.partition_key_table)
    except UnicodeDecodeError as error:
        raise ValueError(f"the aggregate is not readable: {error}") from None
    if not all(isinstance(key, str) for key in keys):  # bytes stand for what is not UTF-8
        raise ValueError("the aggregate holds a partition key that is not UTF-8")
    if any(len(key) > PARTITION_KEY_MAX_CHARACTERS for key in keys):
        longest = f"a partition key of over {PARTITION_KEY_MAX_CHARACTERS} characters"
        raise ValueError(f"the aggregate holds {longest}")
    for record in message.records:
        if record.partition_key_index >= len(keys):
            raise ValueError("the aggregate names a partition key that it does not hold")
        yield keys[record.partition_key_index], record.data


def aggregate(records: Iterable[tuple[str, bytes]]) -> bytes:
    """A KPL aggregate of (partition key, data) pairs, in order. The inverse of `deaggregate`."""
    message = _AGGREGATE()
    keys: dict[str, int] = {}
    for key, data in records:
        message.records.add(partition_key_index=keys.setdefault(key, len(keys)), data=data)
    message.partition_key_table.extend(keys)
    packed: bytes = message.SerializeToString()
    return KPL_MAGIC + packed + hashlib.md5(packed, usedforsecurity=False).digest()


def _aggregated_record() -> Any:
    """The message class, described here so that no generated code is needed."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="millrace_kpl.proto", package="millrace_kpl")
    shapes: dict[str, list[tuple[str, int, Any, str]]] = {
        "Tag": [("key", 1, kind.TYPE_STRING, "required"), ("value", 2, kind.TYPE_STRING, "")],
        "Record": [
            ("partition_key_index", 1, kind.TYPE_UINT64, "required"),
            ("explicit_hash_key_index", 2, kind.TYPE_UINT64, ""),
            ("data", 3, kind.TYPE_BYTES, "required"),
            ("tags", 4, "Tag", "repeated"),
        ],
        "AggregatedRecord": [
            ("partition_key_table", 1, kind.TYPE_STRING, "repeated"),
            ("explicit_hash_key_table", 2, kind.TYPE_STRING, "repeated"),
            ("records", 3, "Record", "repeated"),
        ],
    }
    labels = {
        "": kind.LABEL_OPTIONAL,
        "required": kind.LABEL_REQUIRED,
        "repeated": kind.LABEL_REPEATED,
    }
    for name, fields in shapes.items():
        message = file.message_type.add(name=name)
        for field_name, number, of, label in fields:
            entry = message.field.add(name=field_name, number=number, label=labels[label])
            if isinstance(of, str):
                entry.type, entry.type_name = kind.TYPE_MESSAGE, f".millrace_kpl.{of}"
            else:
                entry.type = of
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("millrace_kpl.AggregatedRecord")
    )


_AGGREGATE = _aggregated_record()
