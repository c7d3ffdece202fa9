"""Sample files: the records of an NDJSON file, a JSON array or one JSON document, gzipped or not.

Each record keeps the number of its line, or of its element, so that what is said of it can be
looked up.
"""

from __future__ import annotations

import codecs
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

GZIP_MAGIC = b"\x1f\x8b"
SAMPLE_MAX_BYTES = 512 * 1024 * 1024  # opened; a sample of more says nothing more


class SampleError(ValueError):
    """A sample file that cannot be read; the message says what is wrong and what to give."""


@dataclass(frozen=True)
class Sample:
    """Records as they are, and where each stands: `places` are lines or elements, from 1."""

    file: str
    bodies: tuple[bytes, ...]
    places: tuple[int, ...]
    unit: Literal["line", "element"]

    def where(self, index: int) -> str:
        return f"{self.unit} {self.places[index]}"


def read_sample(file: str) -> Sample:
    """The records of a file; `-` is stdin. Raises `SampleError`."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise SampleError(f"{file} cannot be read: {error.strerror}") from None
    return sample_of(data, file)


def sample_of(data: bytes, file: str) -> Sample:
    """The records in a file's bytes. Raises `SampleError`."""
    if data.startswith(GZIP_MAGIC):
        data = _unzipped(data, file)
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        raise SampleError(f"{file} holds no record; give NDJSON, one JSON object a line, or a list")
    if not _is_text(data):
        raise SampleError(f"{file} is neither JSON nor gzip: it is not UTF-8 text")
    elements = _array(data)
    if elements is not None:
        if not elements:
            raise SampleError(f"{file} is an empty list; give one with records in it")
        return Sample(file, tuple(elements), tuple(range(1, len(elements) + 1)), "element")
    if _is_one_object(data):
        return Sample(file, (data.strip(),), (1,), "line")
    lines = list(_lines(data))
    return Sample(file, tuple(body for _, body in lines), tuple(n for n, _ in lines), "line")


def _unzipped(data: bytes, file: str) -> bytes:
    """All members of a gzip file, bounded."""
    opened = bytearray()
    while data.startswith(GZIP_MAGIC):
        stream = zlib.decompressobj(wbits=31)
        try:
            opened += stream.decompress(data, SAMPLE_MAX_BYTES - len(opened))
        except zlib.error as error:
            raise SampleError(f"{file} is gzip, but broken: {error}") from None
        if len(opened) >= SAMPLE_MAX_BYTES:
            raise SampleError(f"{file} opens to over {SAMPLE_MAX_BYTES:,} bytes; give a part of it")
        if not stream.eof:
            raise SampleError(f"{file} is gzip, but cut off")
        data = stream.unused_data
    return bytes(opened)


def _is_text(data: bytes) -> bool:
    """Whether at least the first kilobyte is: single broken lines are the pipeline's to reject."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data[:1024])
    except UnicodeDecodeError:
        return False
    return b"\0" not in data[:1024]


def _array(data: bytes) -> list[bytes] | None:
    """The elements, if the whole file is one JSON array, and not a line of NDJSON."""
    if not data.lstrip().startswith(b"["):
        return None
    try:
        return [bytes(raw) for raw in msgspec.json.decode(data, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, RecursionError):
        return None


def _is_one_object(data: bytes) -> bool:
    """Whether the whole file is one JSON object over several lines."""
    if b"\n" not in data.strip():
        return False
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        body = line.removesuffix(b"\r")
        if body.strip():
            yield number, body
