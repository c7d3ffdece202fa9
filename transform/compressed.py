"""gzip and zstd bodies, opened as far as their bound allows and never further.

Both formats may come in several parts, one behind the other (RFC 1952 members, RFC 8878 frames).
A dictionary is not among the bytes, so a zstd frame that needs one cannot be read.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pyarrow as pa

from transform.records import Rejection

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
GZIP_WINDOW = 31  # zlib's wbits for a gzip header and a window of 32 KiB
PIECE_BYTES_MIN = 512  # fed to zlib first; doubled, so that a million empty members cost no square
PIECE_BYTES_MAX = 1_048_576


def is_compressed(body: bytes) -> bool:
    """Whether a body begins like gzip or zstd, which no UTF-8 text does."""
    return body.startswith((GZIP_MAGIC, ZSTD_MAGIC))


def decompressed(body: bytes, most: int) -> bytes | Rejection:
    """What a gzip or zstd body holds, if that is all readable and at most `most` bytes.

    Never makes more than a byte beyond `most`, whatever the body says of its own size.
    """
    name, read = ("gzip", _gzip) if body.startswith(GZIP_MAGIC) else ("zstd", _zstd)
    try:
        opened = read(body, most)
    except (zlib.error, OSError, ValueError) as error:
        return Rejection("envelope", "bad_compression", f"{name}: {error}")
    if len(opened) > most:
        detail = f"{name}: {len(body)} bytes hold more than {most}, the most that are opened"
        return Rejection("envelope", "too_large", detail)
    return opened


Reader = Callable[[bytes, int], bytes]
"""Opens a body to at most one byte more than it is told. Raises for what cannot be read."""


def _gzip(body: bytes, most: int) -> bytes:
    """Every member of a gzip body; zeros behind the last are padding, as gzip(1) has it."""
    parts: list[bytes] = []
    at, left = _gzip_member(body, 0, most + 1, parts)
    while left > 0 and body.startswith(GZIP_MAGIC, at):
        at, left = _gzip_member(body, at, left, parts)
    if left > 0 and body[at:].strip(b"\0"):
        raise ValueError("there are other bytes behind the last member")
    return b"".join(parts)


def _gzip_member(body: bytes, at: int, left: int, parts: list[bytes]) -> tuple[int, int]:
    """One member into `parts`: where it ends, and how much may still be opened."""
    member = zlib.decompressobj(GZIP_WINDOW)
    piece = PIECE_BYTES_MIN
    while not member.eof and left > 0:
        if at >= len(body):
            raise ValueError("the body is cut off")
        part = member.decompress(body[at : at + piece], left)
        at = min(at + piece, len(body)) - len(member.unused_data)
        left -= len(part)
        if part:
            parts.append(part)
        piece = min(2 * piece, PIECE_BYTES_MAX)
    return at, left


def _zstd(body: bytes, most: int) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
        opened: bytes = stream.read(most + 1)
    return opened
