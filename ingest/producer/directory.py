"""The directory of a spill: its lock, its mark of what is acknowledged, its size on the disk."""

from __future__ import annotations

import fcntl
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.producer.messages import SpillError

NUMBER_BYTES = 8
CHECKSUM_BYTES = 4

log = logging.getLogger(__name__)


def locked(directory: Path) -> int:
    """The lock on the directory, which the system lets go of when the process ends."""
    file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise SpillError(
            f"the spill {directory} is in use: give each producer a directory of its own"
        ) from None
    return file


class Cursor:
    """The number below which all messages are acknowledged, in a file.

    It is not synced. Where the file is not whole it is 0: messages are then sent once more.
    """

    def __init__(self, directory: Path) -> None:
        self.file = os.open(directory / "cursor", os.O_RDWR | os.O_CREAT, 0o644)
        content = os.pread(self.file, NUMBER_BYTES + CHECKSUM_BYTES, 0)
        number = content[:NUMBER_BYTES]
        whole = content[NUMBER_BYTES:] == _checksum(number)
        self.number = int.from_bytes(number, "little") if whole else 0

    def move(self, number: int) -> None:
        self.number = number
        content = number.to_bytes(NUMBER_BYTES, "little")
        with tolerated("mark what is acknowledged"):
            os.pwrite(self.file, content + _checksum(content), 0)


def bytes_in(directory: Path, *patterns: str) -> int:
    return sum(path.stat().st_size for pattern in patterns for path in directory.glob(pattern))


@contextmanager
def tolerated(what: str) -> Iterator[None]:
    """What a disk may refuse: later messages go once more, or are written when the system will."""
    try:
        yield
    except OSError as error:
        log.warning("spill: refused by the disk", extra={"action": what, "error": str(error)})


def sync_directory(directory: Path) -> None:
    """A file made in it survives a loss of power from here on."""
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _checksum(number: bytes) -> bytes:
    return zlib.crc32(number).to_bytes(CHECKSUM_BYTES, "little")
