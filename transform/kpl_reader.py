"""KPL aggregates, read: their messages, or why they are set aside.

With protobuf, whose content is of any producer; how one is written, and the format's constants, are
in `transform.kpl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from transform.kpl import MD5_BYTES, members_max
from transform.records import Rejection

PARTITION_KEY_MAX_CHARACTERS = 256  # Kinesis PutRecord; beyond, each member would repeat a huge one


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
