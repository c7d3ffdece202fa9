"""Environments that say all there is to say about credentials and endpoints, as Lambda's does.

botocore knows many more places (profiles, files, roles, metadata services, FIPS and dual-stack
endpoints); where one of them might matter it is asked, and so imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ASKED_OF_BOTOCORE = (
    "AWS_ACCOUNT_ID",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE",
    "AWS_CONFIG_FILE",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_DATA_PATH",
    "AWS_DEFAULT_PROFILE",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "BOTO_CONFIG",
)
"""Variables that change what the others mean."""

FILES = (".aws/config", ".aws/credentials", ".boto")
"""Files of the home directory that do."""


def says_all(environment: Mapping[str, str]) -> bool:
    """Whether keys, region and endpoint are what the plain variables say, or their defaults."""
    keys = environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY")
    if not keys or any(name in environment for name in ASKED_OF_BOTOCORE):
        return False
    home = Path(environment.get("HOME") or "/nonexistent")
    return not any((home / name).exists() for name in FILES)
