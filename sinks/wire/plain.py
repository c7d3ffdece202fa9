"""Environments that say all there is to say about credentials and endpoints, as Lambda's does.

botocore knows many more places (profiles, files, roles, metadata services, FIPS and dual-stack
endpoints); where one of them might matter it is asked, and so imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

ASKED_OF_BOTOCORE = (
    "AWS_ACCOUNT_ID",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_DATA_PATH",
    "AWS_DEFAULT_PROFILE",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
)
"""Variables that change what the others mean."""

FILES = {
    "AWS_CONFIG_FILE": "~/.aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
}
"""Files that do, by the variable that names another."""


def says_all(environment: Mapping[str, str]) -> bool:
    """Whether keys, region and endpoint are what the plain variables say, or their defaults."""
    keys = environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY")
    if not keys or any(name in environment for name in ASKED_OF_BOTOCORE):
        return False
    named = (environment.get(variable, default) for variable, default in FILES.items())
    return not any(_is_file(name, environment) for name in named)


def _is_file(name: str, environment: Mapping[str, str]) -> bool:
    """Whether there is such a file; `~` is where botocore finds it."""
    if "HOME" in environment:
        name = name.replace("~", environment["HOME"], 1) if name.startswith("~/") else name
    with suppress(RuntimeError, OSError):  # nobody's home
        return Path(name).expanduser().is_file()
    return False
