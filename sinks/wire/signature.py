"""Signature Version 4: who asks, for what exactly, on which day, in which region, of which service.

Every header given is signed. The signing key is derived once a day for each secret.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping

from sinks.wire.credentials import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"


def stamp(now: float) -> str:
    """A moment as X-Amz-Date says it."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))


class Signer:
    """Signs requests of one service in one region. Safe from several threads."""

    def __init__(self, service: str, region: str) -> None:
        self._service, self._region = service, region
        self._kept: tuple[str, str, bytes] = ("", "", b"")

    def authorization(  # noqa: PLR0913, PLR0917  what a signature is of
        self,
        credentials: Credentials,
        method: str,
        path: str,
        headers: Mapping[str, str],
        payload: str,
        stamped: str,
    ) -> str:
        """The Authorization header of a request without a query.

        `headers` have lower-case names, `path` is as it is sent, `payload` is the body's SHA-256 or
        what stands for it, `stamped` the moment that the headers tell.
        """
        names = sorted(headers)
        signed = ";".join(names)
        lines = "".join(f"{name}:{headers[name]}\n" for name in names)
        canonical = f"{method}\n{path}\n\n{lines}\n{signed}\n{payload}"
        day = stamped[:8]
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"{ALGORITHM}\n{stamped}\n{scope}\n{digest}"
        key = self._key(credentials.secret_key, day)
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        return (
            f"{ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature={signature}"
        )

    def _key(self, secret: str, day: str) -> bytes:
        kept_secret, kept_day, key = self._kept
        if kept_secret == secret and kept_day == day:
            return key
        key = f"AWS4{secret}".encode()
        for part in (day, self._region, self._service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._kept = secret, day, key
        return key
