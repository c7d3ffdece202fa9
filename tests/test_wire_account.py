"""Where the wire asks, and as whom, is where and as whom boto3 would."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config

from sinks.errors import Misconfigured
from sinks.wire import endpoints, plain
from sinks.wire.credentials import Credentials, identity
from sinks.wire.endpoints import CALLS, Endpoint, endpoint
from tests.support import SESSION

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
BUCKETS = ["bucket", "my.bucket", "0-bucket-9", "a.b-c.d", "bucket--x"]
OVERRIDES: list[dict[str, str]] = [
    {},
    {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"},
    {"AWS_ENDPOINT_URL": "https://localhost/base/"},
    {"AWS_ENDPOINT_URL": "http://EXAMPLE.com:80"},
    {"AWS_ENDPOINT_URL": "http://[::1]:4566"},
    {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_S3": "https://s3.own:443"},
    {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_DYNAMODB": "http://tables:1"},
    {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_SFN": "http://machines:2"},
    {"AWS_ENDPOINT_URL_SFN": "https://states.eu-central-1.amazonaws.com"},
    {"AWS_ENDPOINT_URL": ""},
]
REGIONS = ["ap-southeast-4", "us-gov-west-1", "cn-north-1"]


@pytest.fixture(autouse=True)
def blank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process in whose environment nothing is said, and whose home is empty."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    return tmp_path


class Asked(Exception):
    """The request that boto3 was about to send."""


def url_of_boto3(service: str, bucket: str) -> str:
    def stop(request: Any, **_: Any) -> None:
        raise Asked(request.url)

    config = Config(parameter_validation=False)
    whose = {"AWS_PROFILE", "AWS_ACCOUNT_ID"} & os.environ.keys()
    session = boto3.session.Session() if whose else SESSION
    client = session.client(service, os.environ.get("AWS_DEFAULT_REGION"), config=config)
    client.meta.events.register("before-send", stop)
    operation, call = CALLS[service]  # type: ignore[index]
    with pytest.raises(Asked) as asked:
        getattr(client, operation)(**call, **({"Bucket": bucket} if bucket else {}))
    return str(asked.value)


def url_of(found: Endpoint, service: str) -> str:
    return f"{found.scheme}://{found.authority}{found.path}{'/-' if service == 's3' else '/'}"


@pytest.mark.parametrize(
    ("region", "override"),
    [
        *((region, override) for region in ("us-east-1", "eu-central-1") for override in OVERRIDES),
        *((region, {}) for region in REGIONS),
    ],
    ids=str,
)
def test_a_service_is_asked_where_boto3_would(
    monkeypatch: pytest.MonkeyPatch, region: str, override: dict[str, str]
):
    environment = {**KEYS, "AWS_DEFAULT_REGION": region, **override}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for bucket in BUCKETS:
        found = endpoint("s3", os.environ, bucket)
        assert url_of(found, "s3") == normal(url_of_boto3("s3", bucket))
        assert found.region == region
    found = endpoint("dynamodb", os.environ)
    assert url_of(found, "dynamodb").rstrip("/") == normal(url_of_boto3("dynamodb", "")).rstrip("/")
    if not any(override.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SFN")):
        found = endpoint("stepfunctions", os.environ)
        assert url_of(found, "") == url_of_boto3("stepfunctions", "")


def normal(url: str) -> str:
    """A URL as it is connected to: the host in lower case, no port that goes without saying."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    default = {"http": ":80", "https": ":443"}[scheme]
    return f"{scheme}://{host.lower().removesuffix(default)}{slash}{path}"


@pytest.mark.parametrize(
    ("override", "host"),
    [
        ({}, "sync-states.eu-central-1.amazonaws.com"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}, "127.0.0.1"),
        ({"AWS_ENDPOINT_URL_SFN": "https://vpce-1.states.eu-central-1.vpce.amazonaws.com"}, ""),
        (
            {"AWS_ENDPOINT_URL_SFN": "https://states.eu-central-1.amazonaws.com"},
            "sync-states.eu-central-1.amazonaws.com",
        ),
        ({"AWS_DISABLE_HOST_PREFIX_INJECTION": "true"}, "states.eu-central-1.amazonaws.com"),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "sync-states-fips.eu-central-1.amazonaws.com"),
    ],
)
@pytest.mark.parametrize("profile", [{}, {"AWS_PROFILE": "default"}], ids=["plain", "asked"])
def test_synchronous_executions_have_a_host_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
    blank: Path,
    override: dict[str, str],
    host: str,
    profile: dict[str, str],
):
    """Only AWS's own: before any other, botocore's prefix would name a host that is not there."""
    (blank / ".aws").mkdir()
    if profile:
        (blank / ".aws" / "config").write_text("[default]\n")
    environment = {**KEYS, "AWS_DEFAULT_REGION": "eu-central-1", **override, **profile}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    given = override.get("AWS_ENDPOINT_URL_SFN", "").partition("://")[2]
    assert endpoint("stepfunctions", os.environ).host == (host or given)


@pytest.mark.parametrize(
    "more",
    [
        {"AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_ENDPOINT_URL": "http://nowhere"},
        {"AWS_ACCOUNT_ID": "123456789012"},
        {"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "regional"},
    ],
    ids=str,
)
def test_rarer_variables_mean_what_they_mean_to_boto3(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, str]
):
    for name, value in {**KEYS, "AWS_DEFAULT_REGION": "us-east-1", **more}.items():
        monkeypatch.setenv(name, value)
    assert not plain.says_all(os.environ)
    assert url_of(endpoint("s3", os.environ, "bucket"), "s3") == url_of_boto3("s3", "bucket")
    assert url_of(endpoint("dynamodb", os.environ), "") == url_of_boto3("dynamodb", "")


def test_a_profile_means_what_it_means_to_boto3(monkeypatch: pytest.MonkeyPatch, blank: Path):
    (blank / ".aws").mkdir()
    (blank / ".aws" / "config").write_text(
        "[profile far]\nregion = sa-east-1\ns3 =\n  addressing_style = path\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "far")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    found = endpoint("s3", os.environ, "bucket")
    assert url_of(found, "s3") == "https://s3.sa-east-1.amazonaws.com/bucket/-"
    assert found.region == "sa-east-1"


def test_the_region_lambda_names_is_enough_and_without_one_an_operator_is_asked():
    assert endpoint("dynamodb", {**KEYS, "AWS_REGION": "eu-north-1"}).region == "eu-north-1"
    with pytest.raises(Misconfigured, match="find where dynamodb is"):
        endpoint("dynamodb", KEYS)


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
def test_no_request_goes_past_a_proxy(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, "http://proxy:3128")
    environment = {**KEYS, "AWS_REGION": "eu-north-1", name: "http://proxy:3128"}
    with pytest.raises(Misconfigured, match="MILLRACE_TRANSPORT to boto3"):
        endpoint("dynamodb", environment)
    monkeypatch.setenv("no_proxy", "localhost,.amazonaws.com")
    assert endpoint("dynamodb", environment).host == "dynamodb.eu-north-1.amazonaws.com"


# Credentials


ENVIRONMENTS = [
    KEYS,
    KEYS | {"AWS_SESSION_TOKEN": "token"},
    KEYS | {"AWS_SECURITY_TOKEN": "older", "AWS_SESSION_TOKEN": "token"},
    KEYS | {"AWS_SESSION_TOKEN": ""},
    KEYS | {"AWS_PROFILE": "far"},
    {"AWS_PROFILE": "far"},
    {},
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_requests_are_signed_as_who_boto3_would_be(
    monkeypatch: pytest.MonkeyPatch, blank: Path, environment: dict[str, str]
):
    folder = blank / ".aws"
    folder.mkdir()
    written = "[%s]\naws_access_key_id = %s\naws_secret_access_key = s\naws_session_token = t\n"
    (folder / "credentials").write_text(written % ("far", "far") + written % ("default", "own"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = botocore.session.Session().get_credentials().get_frozen_credentials()
    expected = Credentials(found.access_key, found.secret_key, found.token or "")
    assert identity(os.environ)() == expected
    if "AWS_PROFILE" not in environment:
        (folder / "credentials").unlink()
        if environment:
            assert plain.says_all(os.environ)
            assert identity(os.environ)() == expected


def test_nobody_is_for_the_operator(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Misconfigured, match="no credentials"):
        identity(os.environ)()


@pytest.mark.parametrize("missing", sorted(KEYS))
def test_half_of_the_keys_are_none(monkeypatch: pytest.MonkeyPatch, missing: str):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in KEYS.keys() - {missing}:
        monkeypatch.setenv(name, "x")
    with pytest.raises(Misconfigured):
        identity(os.environ)()


def test_refreshed_credentials_are_taken_up(monkeypatch: pytest.MonkeyPatch, blank: Path):
    """A process of its own tells them, each time others, and that they expire at once."""
    counted = blank / "count"
    program = blank / "tell.py"
    program.write_text(f"""
import datetime, json, pathlib
count = pathlib.Path({str(counted)!r})
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=60)
print(json.dumps({{"Version": 1, "AccessKeyId": f"id-{{number}}", "SecretAccessKey": "s",
    "SessionToken": f"token-{{number}}", "Expiration": soon.isoformat()}}))
""")
    (blank / ".aws").mkdir()
    told = f"[default]\ncredential_process = {sys.executable} {program}\n"
    (blank / ".aws" / "config").write_text(told)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    who = identity(os.environ)
    first, second = who(), who()
    assert first.access_key != second.access_key
    assert json.loads(counted.read_text()) > 1


def test_botocore_stays_out_where_the_environment_says_all():
    assert plain.says_all({**KEYS, "HOME": "/nonexistent"})
    assert plain.says_all({**KEYS, "HOME": "/", "AWS_CONFIG_FILE": os.devnull})
    assert not plain.says_all({**KEYS, "HOME": "/", "AWS_CONFIG_FILE": __file__})
    assert endpoints._plain("dynamodb", {**KEYS, "AWS_REGION": "eu-west-1"}, "") is not None
