"""Base64 text, as SQS and JSON need of all that is not text itself."""

from __future__ import annotations

import re

import pybase64

ENCODED_CHARACTERS_MIN = 8  # of a body: shorter text says too little to be taken for base64


def decoded(text: bytes) -> bytes | None:
    """What `text` is base64 of, in either alphabet, with or without padding and line breaks.

    `None` where it holds anything else.
    """
    if not _BASE64.fullmatch(text):
        return None
    letters = text.translate(_STANDARD, b" \t\r\n").rstrip(b"=")
    if len(letters) % 4 == 1:
        return None
    return pybase64.b64decode(letters + b"=" * (-len(letters) % 4))


_BASE64 = re.compile(rb"[A-Za-z0-9+/_\- \t\r\n]*+(?:=[ \t\r\n]*+){0,2}")
_STANDARD = bytes.maketrans(b"-_", b"+/")  # from the alphabet for URLs
