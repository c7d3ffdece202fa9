"""AWS Signature Version 4 of a request as it is on the wire: verified, and made anew."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import parse_qsl, quote

from infra.local.proxy import Request, with_body
from sinks.wire.signature import ALGORITHM, signing_key

SKEW = timedelta(minutes=5)  # how far a request's time may be from ours
TIME = "%Y%m%dT%H%M%SZ"
ALWAYS_SIGNED = frozenset({"host", "x-amz-date"})

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} +Credential=([^/, ]+)/([0-9]{{8}})/([^/, ]+)/([^/, ]+)/aws4_request, *"
    r"SignedHeaders=([^, ]+), *Signature=([0-9a-f]{64})"
)


class SignatureError(Exception):
    """A request is not signed as it must be: `code` is AWS's word for how."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def verify(request: Request, service: str, key_id: str, secret: str, now: datetime) -> None:
    """Return if the request was signed with this key, for this service, just now.

    Raises `SignatureError`. Any region is taken: an endpoint of one's own has none.
    """
    header = request.headers.get("authorization")
    if header is None:
        raise SignatureError(
            "MissingAuthenticationTokenException", "Request is missing Authentication Token"
        )
    found = _AUTHORIZATION.fullmatch(header)
    if found is None:
        raise SignatureError(
            "IncompleteSignatureException", f"Authorization header is not complete: {header!r}"
        )
    who, day, region, asked, names, told = found.groups()
    if who != key_id:
        raise SignatureError(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )
    _check_time(request.headers.get("x-amz-date", ""), day, now)
    signed = names.split(";")
    right = asked == service and ALWAYS_SIGNED.issubset(signed)
    if not right or not hmac.compare_digest(
        told, _signature(request, secret, (day, region, asked), signed)
    ):
        raise SignatureError(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check "
            "your AWS Secret Access Key and signing method. Consult the service documentation for "
            "details.",
        )


def with_signed_body(request: Request, body: bytes, secret: str) -> Request:
    """The same request with another body, signed anew if it was signed; its time stays."""
    changed = replace(request, head=with_body(request.head, body, {}), body=body)
    found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        return changed
    _, day, region, service, names, old = found.groups()
    new = _signature(changed, secret, (day, region, service), names.split(";"))
    return replace(changed, head=changed.head.replace(old.encode(), new.encode()))


def _check_time(text: str, day: str, now: datetime) -> None:
    at = _moment(text)
    if at is None:
        raise SignatureError("IncompleteSignatureException", f"x-amz-date is no time: {text!r}")
    if text[:8] != day:
        raise SignatureError(
            "InvalidSignatureException", "Date in Credential scope does not match x-amz-date"
        )
    if at < now - SKEW:
        raise SignatureError(
            "InvalidSignatureException",
            f"Signature expired: {text} is now earlier than {now - SKEW:{TIME}}",
        )
    if at > now + SKEW:
        raise SignatureError(
            "InvalidSignatureException",
            f"Signature not yet current: {text} is still later than {now + SKEW:{TIME}}",
        )


@lru_cache(maxsize=64)  # many requests are of the same second
def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def _signature(
    request: Request, secret: str, scope: tuple[str, str, str], signed: Sequence[str]
) -> str:
    headers = request.headers
    path, _, query = request.words[1].partition("?")
    canonical = "\n".join(
        [
            request.method,
            path,
            _query(query) if query else "",
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed),
            "",
            ";".join(signed),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    day, region, service = scope
    text = (
        f"{ALGORITHM}\n{headers.get('x-amz-date', '')}\n{day}/{region}/{service}/aws4_request\n"
        f"{hashlib.sha256(canonical.encode('latin-1')).hexdigest()}"
    )
    return hmac.digest(_key(secret, *scope), text.encode("latin-1"), "sha256").hex()


def _query(query: str) -> str:
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


_key = lru_cache(maxsize=8)(signing_key)  # a day, a region or two
