"""PutObject and GetObject over the wire, each body with a checksum of its own."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from sinks.bucket import Condition, Found
from sinks.deadline import Deadline
from sinks.errors import Unavailable, of_answer
from sinks.table import Waiting
from sinks.wire.answers import Answer, Broken
from sinks.wire.service import Request, Service

ATTEMPTS_MAX = 4
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 2.0
UNSIGNED = "UNSIGNED-PAYLOAD"  # TLS keeps a body whole, and S3 compares its crc32
NOTHING = hashlib.sha256(b"").hexdigest()
CODE = re.compile(rb"<Code>([^<]*)</Code>")
MESSAGE = re.compile(rb"<Message>([^<]*)</Message>")
CONDITIONS = {"IfMatch": "if-match", "IfNoneMatch": "if-none-match"}

T = TypeVar("T")


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
        headers = {"x-amz-checksum-mode": "ENABLED", "x-amz-content-sha256": NOTHING}
        request = Request("GET", _path(key), headers, payload=NOTHING)

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
        payload = UNSIGNED if secure else hashlib.sha256(data).hexdigest()
        headers = {
            "x-amz-checksum-crc32": base64.b64encode(_crc32(data)).decode(),
            "x-amz-content-sha256": payload,
            "x-amz-sdk-checksum-algorithm": "CRC32",
            **{CONDITIONS[name]: value for name, value in condition.items()},
        }
        request = Request("PUT", _path(key), headers, data, payload)

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


def _path(key: str) -> str:
    return "/" + quote(key, safe="/-._~")


def _check(answer: Answer, what: str) -> None:
    """Raise where the object is not what S3 says. One put in parts has no sum of the whole."""
    for name, of in CHECKSUMS.items():
        told = answer.text(name)
        if told and "-" not in told:
            if base64.b64encode(of(answer.body)).decode() != told:
                raise Unavailable(f"{what}: the object has another checksum than it says")
            return


def _said(answer: Answer) -> tuple[str, str]:
    """Code and message of an error; where the body says none, the status."""
    code, message = (found.search(answer.body) for found in (CODE, MESSAGE))
    return (
        code[1].decode("utf-8", "replace") if code else str(answer.status),
        message[1].decode("utf-8", "replace") if message else "",
    )
