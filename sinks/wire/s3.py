"""PutObject and GetObject over the wire, each body with a checksum of its own."""

from __future__ import annotations

import hashlib
import re
import zlib
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar
from urllib.parse import quote

from sinks.bucket import Condition, Found
from sinks.deadline import Deadline
from sinks.errors import Unavailable, of_answer
from sinks.table import Waiting
from sinks.wire.answers import Answer, Broken
from sinks.wire.service import Request, Service
from sinks.wire.signature import Kind

ATTEMPTS_MAX = 4
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 2.0
UNSIGNED = "UNSIGNED-PAYLOAD"  # TLS keeps a body whole, and S3 compares its crc32
NOTHING = hashlib.sha256(b"").hexdigest()
CODE = re.compile(rb"<Code>([^<]*)</Code>")
MESSAGE = re.compile(rb"<Message>([^<]*)</Message>")
SIGNED = "x-amz-content-sha256"
GET = Kind("GET", {"x-amz-checksum-mode": "ENABLED", SIGNED: NOTHING})
SAFE = "/-._~"
PLAIN = re.compile(r"[A-Za-z0-9/._~-]+")
CONDITIONS = {"IfMatch": "if-match", "IfNoneMatch": "if-none-match"}

T = TypeVar("T")


def _base64(digest: bytes) -> str:
    return b2a_base64(digest, newline=False).decode()


def _crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


CHECKSUMS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"x-amz-checksum-crc32": _crc32,
    b"x-amz-checksum-sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    b"x-amz-checksum-sha256": lambda data: hashlib.sha256(data).digest(),
}
"""Those that S3 may tell of an object, and that botocore can check with Python's own libraries."""


@dataclass(frozen=True)
class WireObjects:
    """`sinks.bucket.Objects` of one bucket. What is weather is tried `attempts` times in all."""

    service: Service
    name: str
    waiting: Waiting
    attempts: int = ATTEMPTS_MAX

    def get(self, key: str) -> Found:
        """The object, whole and as it was written."""
        what = f"get s3://{self.name}/{key}"
        request = Request(GET, _path(key), payload=NOTHING)

        def attempt() -> Found:
            answer = self._asked(request, what)
            _check(answer, what)
            return Found(answer.body, answer.text(b"etag"))

        return self._tried(attempt, None)

    def put(
        self, key: str, data: bytes, condition: Condition, deadline: Deadline | None = None
    ) -> None:
        """Write an object under a condition; no attempt is begun after the deadline."""
        what = f"put s3://{self.name}/{key}"
        secure = self.service.endpoint.secure
        values = *condition.values(), _base64(_crc32(data))
        if secure:
            request = Request(_put(*condition), _path(key), data, UNSIGNED, values)
        else:
            digest = hashlib.sha256(data).hexdigest()
            kind = _put(*condition, signs_body=True)
            request = Request(kind, _path(key), data, digest, (*values, digest))

        def attempt() -> None:
            answer = self._asked(request, what)
            if answer.body:  # an error after the 200 was out, or not S3's answer at all
                raise Unavailable(f"{what}: {_said(answer)[0]} in the answer's body")

        self._tried(attempt, deadline)

    def _asked(self, request: Request, what: str) -> Answer:
        try:
            answer = self.service.ask(request, repeatable=True)
        except Broken as broken:
            raise Unavailable(f"{what}: {broken}") from broken
        if not answer.good:
            raise of_answer(what, answer.status, *_said(answer))
        return answer

    def _tried(self, attempt: Callable[[], T], deadline: Deadline | None) -> T:
        """Weather is tried again after a pause with full jitter."""
        pause = BACKOFF_FIRST_SECONDS
        for _ in range(1, self.attempts):
            try:
                return attempt()
            except Unavailable:
                wait = self.waiting.uniform(0, pause)
                if deadline is not None and deadline.left <= wait:
                    raise
                self.waiting.sleep(wait)
                pause = min(2 * pause, BACKOFF_MAX_SECONDS)
        return attempt()


@cache
def _put(*conditions: str, signs_body: bool = False) -> Kind:
    """A PutObject's kind; without TLS its body is signed as well."""
    varying = (*(CONDITIONS[name] for name in conditions), "x-amz-checksum-crc32")
    fixed = {"x-amz-sdk-checksum-algorithm": "CRC32"}
    if signs_body:
        return Kind("PUT", fixed, (*varying, SIGNED))
    return Kind("PUT", fixed | {SIGNED: UNSIGNED}, varying)


def _path(key: str) -> str:
    """A key as a path has it. Most need no quoting, which to find takes urllib longer."""
    return f"/{key if PLAIN.fullmatch(key) else quote(key, safe=SAFE)}"


def _check(answer: Answer, what: str) -> None:
    """Raise where the object is not what S3 says. One put in parts has no sum of the whole."""
    for name, of in CHECKSUMS.items():
        told = answer.text(name)
        if told and "-" not in told:
            if _base64(of(answer.body)) != told:
                raise Unavailable(f"{what}: the object has another checksum than it says")
            return


def _said(answer: Answer) -> tuple[str, str]:
    """Code and message of an error; where the body says none, the status."""
    code, message = (found.search(answer.body) for found in (CODE, MESSAGE))
    return (
        code[1].decode("utf-8", "replace") if code else str(answer.status),
        message[1].decode("utf-8", "replace") if message else "",
    )
