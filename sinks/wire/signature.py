"""Signature Version 4: who asks, for what exactly, on which day, in which region, of which service.

A path asks for thousands of requests which differ in little. What they share is made once, as a
`Template`; the signing key is derived once a day for each secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sinks.errors import Misconfigured
from sinks.wire.credentials import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"
DATE = "x-amz-date"
OWN = "User-Agent: millrace\r\nAccept-Encoding: identity\r\n"  # not signed
VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")  # no control characters: no headers
ACCESS_KEY = re.compile(r"[\x21-\x7e]+")
PATH = re.compile(r"/[\x21-\x7e]*")


@lru_cache(1)
def stamp(seconds: int) -> str:
    """A moment, in whole seconds since 1970, as X-Amz-Date says it."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


class Keyed:
    """HMAC-SHA256 (RFC 2104) of a day's many texts by one key.

    The hashes that the key begins are kept and copied: half of the time of `hmac.digest`, which
    begins them anew and looks its algorithm up first.
    """

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(hashlib.sha256().block_size, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def digest(self, text: bytes) -> str:
        """In hexadecimal."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.hexdigest()


@dataclass(frozen=True, eq=False)
class Kind:
    """Requests that differ in path, body and the values of some headers alone.

    `headers` have lower-case names. The values of `varying` ones come with each request; their
    names are in order, as a signature has them, and before `DATE`. A kind is itself and equals no
    other, so that it is found fast: make each once.
    """

    method: str
    headers: Mapping[str, str]
    varying: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Template:
    """The heads of one kind of request to one endpoint, by whose signature, of one day.

    All of that is fixed, and is in three texts with gaps. A request fills in its path, values,
    moment and payload, then the digest of that, then the signature and its length. It holds
    secrets, so nothing shows it.
    """

    credentials: Credentials
    day: str
    _canonical: str
    _text: str
    _head: str
    _keyed: Keyed
    _sized: bool

    def head(
        self, path: str, values: tuple[str, ...], stamped: str, payload: str, size: int
    ) -> bytes:
        """A head, signed; `payload` is the body's SHA-256 or what stands for it."""
        if not PATH.fullmatch(path):
            raise Misconfigured("the path would hold what no path may")
        for value in values:
            if not VALUE.fullmatch(value):
                raise Misconfigured("a header would hold what no header may")
        canonical = self._canonical % (path, *values, stamped, payload)
        text = self._text % (stamped, hashlib.sha256(canonical.encode()).hexdigest())
        signature = self._keyed.digest(text.encode())
        sized = (size,) if self._sized else ()
        return (self._head % (path, *values, stamped, signature, *sized)).encode()


class Signer:
    """Signs requests of one service in one region. Safe from several threads."""

    def __init__(self, service: str, region: str) -> None:
        self._service, self._region = service, region
        self._kept: tuple[str, str, Keyed | None] = ("", "", None)

    def template(
        self, credentials: Credentials, kind: Kind, authority: str, prefix: str, day: str
    ) -> Template:
        """How to ask an endpoint, whose paths all begin with `prefix`. Every header is signed."""
        if not ACCESS_KEY.fullmatch(credentials.access_key):
            raise Misconfigured("the access key would hold what no header may")
        headers = {**kind.headers, "host": authority}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        for name, value in headers.items():
            if not VALUE.fullmatch(value):
                raise Misconfigured(f"the header {name} would hold what no header may")
        gaps = (*kind.varying, DATE)
        if list(gaps) != sorted(gaps):
            raise ValueError(f"varying headers are not in order: {kind.varying}")
        told = {name: _literal(value) for name, value in headers.items()} | dict.fromkeys(
            gaps, "%s"
        )
        names = sorted(told)
        signed = ";".join(names)
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        sized = kind.method != "GET"
        who = f"{ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={signed}"
        canonical = "".join(f"{name}:{told[name]}\n" for name in names)
        lines = "".join(f"{name}: {told[name]}\r\n" for name in names)
        length = "content-length: %d\r\n" if sized else ""
        path = f"{_literal(prefix)}%s"
        return Template(
            credentials=credentials,
            day=day,
            _canonical=f"{kind.method}\n{path}\n\n{canonical}\n{signed}\n%s",
            _text=f"{ALGORITHM}\n%s\n{_literal(scope)}\n%s",
            _head=f"{kind.method} {path} HTTP/1.1\r\n{lines}"
            f"authorization: {_literal(who)}, Signature=%s\r\n{length}{OWN}\r\n",
            _keyed=self._keyed(credentials.secret_key, day),
            _sized=sized,
        )

    def _keyed(self, secret: str, day: str) -> Keyed:
        kept_secret, kept_day, keyed = self._kept
        if keyed is None or (kept_secret, kept_day) != (secret, day):
            keyed = Keyed(signing_key(secret, day, self._region, self._service))
            self._kept = secret, day, keyed
        return keyed


def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """What a secret signs with on one day, in one region, for one service."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _literal(text: str) -> str:
    """Text that is no gap, wherever it has a percent sign."""
    return text.replace("%", "%%")
