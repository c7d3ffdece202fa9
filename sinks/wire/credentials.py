"""Credentials by botocore's own rules: the plain variables here, all else asked of botocore."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sinks.errors import Misconfigured, translated
from sinks.wire import plain


@dataclass(frozen=True)
class Credentials:
    """Whom a request is signed by. Secrets are in no repr, so in no log."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


Identity = Callable[[], Credentials]
"""The credentials of this moment, asked for each request: what was refreshed is taken up."""


def identity(environment: Mapping[str, str]) -> Identity:
    """Who signs in this environment. Asking raises `Misconfigured` where there is nobody."""
    if not plain.says_all(environment):
        return _of_botocore()
    token = environment.get("AWS_SECURITY_TOKEN") or environment.get("AWS_SESSION_TOKEN") or ""
    own = Credentials(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], token)
    return lambda: own


def _of_botocore() -> Identity:
    """The chain of botocore, which refreshes what expires."""
    import botocore.session  # noqa: PLC0415  a cold start without need of it does without it

    session = botocore.session.get_session()

    def frozen() -> Credentials:
        with translated("find credentials"):
            found = session.get_credentials()  # which the session keeps
        if found is None:
            raise Misconfigured("no credentials are found in the environment, files or services")
        with translated("refresh the credentials"):
            own = found.get_frozen_credentials()
        return Credentials(str(own.access_key), str(own.secret_key), own.token or "")

    return frozen
