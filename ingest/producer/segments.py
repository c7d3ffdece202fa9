"""The files of a spill: segments of checksummed records.

    header  magic 8 · run 16 · first number 8
    record  length 4 · CRC-32 4 · key's length 2 · key · data          (little-endian)

Bytes that are no whole record are never thrown away: they are set aside, and said.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest.producer.messages import Message

MAGIC = b"MRSPILL1"
HEADER = struct.Struct("<8s16sQ")
RECORD = struct.Struct("<II")
KEY = struct.Struct("<H")
RECORD_OVERHEAD_BYTES = RECORD.size + KEY.size

log = logging.getLogger(__name__)


@dataclass
class Segment:
    """A file of consecutive messages."""

    path: Path
    run: bytes
    first: int
    messages: int = 0
    size: int = HEADER.size  # bytes of the file
    read: int = HEADER.size  # bytes that have been read, or need not be
    seen: int = 0  # and the messages in them

    @property
    def end(self) -> int:
        """The number behind its last message."""
        return self.first + self.messages

    @property
    def all_read(self) -> bool:
        return self.read == self.size


def record_of(message: Message) -> bytes:
    key = message.key.encode()
    content = KEY.pack(len(key)) + key + message.data
    return RECORD.pack(len(content), zlib.crc32(content)) + content


def header_of(run: bytes, first: int) -> bytes:
    return HEADER.pack(MAGIC, run, first)


def found(directory: Path) -> list[Segment]:
    """The segments that an earlier process left, oldest first, each with whole records only."""
    segments = (_opened(path) for path in sorted(directory.glob("*.segment")))
    return [segment for segment in segments if segment is not None]


def rest_of(segment: Segment) -> tuple[list[Message], int]:
    """The messages not read yet, and how many cannot be read any more. All of it counts as read."""
    with segment.path.open("rb") as file:
        file.seek(segment.read)
        content = file.read(segment.size - segment.read)
    messages, end = _parsed(content, 0, segment.run, segment.first + segment.seen)
    lost = segment.messages - segment.seen - len(messages)
    if lost:
        _set_aside(segment.path, content[end:])
    segment.read, segment.seen = segment.size, segment.messages
    return messages, lost


def _opened(path: Path) -> Segment | None:
    content = path.read_bytes()
    if len(content) < HEADER.size or content[: len(MAGIC)] != MAGIC:
        _set_aside(path, content)
        path.unlink()
        return None
    _, run, first = HEADER.unpack_from(content)
    messages, end = _parsed(content, HEADER.size, run, first)
    if end < len(content):
        _set_aside(path, content[end:])
        os.truncate(path, end)
    if not messages:
        path.unlink()
        return None
    return Segment(path, run, first, len(messages), end)


def _parsed(content: bytes, at: int, run: bytes, number: int) -> tuple[list[Message], int]:
    """The whole records from a place on, and where they end."""
    messages: list[Message] = []
    for body, end in _bodies(content, at):
        (key_bytes,) = KEY.unpack_from(body)
        key = body[KEY.size : KEY.size + key_bytes].decode()
        messages.append(Message(key, body[KEY.size + key_bytes :], number + len(messages), run))
        at = end
    return messages, at


def _bodies(content: bytes, at: int) -> Iterator[tuple[bytes, int]]:
    while at + RECORD.size <= len(content):
        length, checksum = RECORD.unpack_from(content, at)
        start, at = at + RECORD.size, at + RECORD.size + length
        body = content[start:at]
        if not KEY.size <= length == len(body) or zlib.crc32(body) != checksum:
            return
        yield body, at


def _set_aside(path: Path, content: bytes) -> None:
    """Keep bytes that are no whole record: a write cut short by death, or damage to the disk."""
    if content:
        kept = path.with_suffix(".damaged")
        with kept.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        log.warning("spill: bytes set aside", extra={"file": str(kept), "bytes": len(content)})
