"""Signature Version 4: who asks, for what exactly, on which day, in which region, of which service.

Every header given is signed. The signing key is derived once a day for each secret.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sinks.wire.credentials import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"


def stamp(now: float) -> str:
    """A moment as X-Amz-Date says it."""
    return _stamp(int(now))


@lru_cache(1)
def _stamp(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


@dataclass(frozen=True, repr=False)
class Signing:
    """All of a signature but the body's part: requests that differ in nothing else share it.

    It holds secrets, so nothing shows it.
    """

    canonical: str
    text: str
    begin: str
    key: bytes

    def authorization(self, payload: str) -> str:
        """The Authorization header; `payload` is the body's SHA-256 or what stands for it."""
        digest = hashlib.sha256(f"{self.canonical}{payload}".encode()).hexdigest()
        signature = hmac.digest(self.key, f"{self.text}{digest}".encode(), "sha256").hex()
        return f"{self.begin}{signature}"


class Signer:
    """Signs requests of one service in one region. Safe from several threads."""

    def __init__(self, service: str, region: str) -> None:
        self._service, self._region = service, region
        self._kept: tuple[str, str, bytes] = ("", "", b"")

    def signing(
        self,
        credentials: Credentials,
        method: str,
        path: str,
        headers: Mapping[str, str],
        stamped: str,
    ) -> Signing:
        """How to sign requests without a query.

        `headers` have lower-case names, `path` is as it is sent, `stamped` the moment that the
        headers tell.
        """
        names = sorted(headers)
        signed = ";".join(names)
        lines = "".join(f"{name}:{headers[name]}\n" for name in names)
        day = stamped[:8]
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        return Signing(
            canonical=f"{method}\n{path}\n\n{lines}\n{signed}\n",
            text=f"{ALGORITHM}\n{stamped}\n{scope}\n",
            begin=f"{ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature=",
            key=self._key(credentials.secret_key, day),
        )

    def _key(self, secret: str, day: str) -> bytes:
        kept_secret, kept_day, key = self._kept
        if kept_secret == secret and kept_day == day:
            return key
        key = signing_key(secret, day, self._region, self._service)
        self._kept = secret, day, key
        return key


def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """What a secret signs with on one day, in one region, for one service."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
