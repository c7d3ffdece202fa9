"""Where a service is: exactly where boto3 would ask it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sinks.errors import Misconfigured, translated
from sinks.wire import plain

Service = Literal["dynamodb", "s3", "stepfunctions"]

VARIABLES: dict[Service, str] = {
    "dynamodb": "AWS_ENDPOINT_URL_DYNAMODB",
    "s3": "AWS_ENDPOINT_URL_S3",
    "stepfunctions": "AWS_ENDPOINT_URL_SFN",
}
CALLS: dict[Service, tuple[str, dict[str, Any]]] = {
    "dynamodb": ("batch_write_item", {"RequestItems": {}}),
    "s3": ("get_object", {"Key": "-"}),
    "stepfunctions": ("start_sync_execution", {"stateMachineArn": "-", "input": "{}"}),
}
"""A call by which boto3 shows where it would ask."""

PORTS = {"http": 80, "https": 443}
REGION = re.compile(r"(us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-\d")  # of the partition `aws`
URL = re.compile(
    r"(https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?((?:/[A-Za-z0-9._~-]+)*)/?"
)
BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")  # that can be part of a host's name
OTHER_KINDS = ("--x-s3", "--ol-s3", "-s3alias")  # of buckets' names: they have rules of their own
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True)
class Endpoint:
    """`path` is what every path of the service begins with: with S3, often the bucket."""

    scheme: str
    host: str
    port: int
    path: str
    region: str

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """What the Host header says."""
        return self.host if self.port == PORTS[self.scheme] else f"{self.host}:{self.port}"


def endpoint(service: Service, environment: Mapping[str, str], bucket: str = "") -> Endpoint:
    """Where to ask the service, of S3 for this bucket. Raises `Misconfigured`."""
    found = _plain(service, environment, bucket)
    if found is None:
        found = _of_boto3(service, bucket)
    if any(environment.get(name) or environment.get(name.upper()) for name in PROXIES):
        _unproxied(found)
    return found


def _plain(service: Service, environment: Mapping[str, str], bucket: str) -> Endpoint | None:
    """What the plain variables say; None where boto3 has to be asked."""
    region = environment.get("AWS_DEFAULT_REGION") or environment.get("AWS_REGION") or ""
    ordinary = not bucket or BUCKET.fullmatch(bucket.replace(".", "-"))
    if not (plain.says_all(environment) and REGION.fullmatch(region) and ordinary):
        return None
    if bucket.endswith(OTHER_KINDS):
        return None
    if given := environment.get(VARIABLES[service]) or environment.get("AWS_ENDPOINT_URL"):
        found = _of_url(given, region, bucket)
        own = found is not None and found.host.startswith("states.")  # has another for sync
        return None if own else found
    if "AWS_DISABLE_HOST_PREFIX_INJECTION" in environment and service == "stepfunctions":
        return None
    host = {
        "dynamodb": f"dynamodb.{region}.amazonaws.com",
        "s3": "s3.amazonaws.com" if region == "us-east-1" else f"s3.{region}.amazonaws.com",
        "stepfunctions": f"sync-states.{region}.amazonaws.com",
    }[service]
    if bucket and "." not in bucket:
        return Endpoint("https", f"{bucket}.{host}", 443, "", region)
    return Endpoint("https", host, 443, f"/{bucket}" if bucket else "", region)


def _of_url(url: str, region: str, bucket: str) -> Endpoint | None:
    """An endpoint given by its URL: buckets are in the path."""
    match = URL.fullmatch(url)
    if match is None:
        return None
    scheme, host, port, path = match.groups()
    path += f"/{bucket}" if bucket else ""
    return Endpoint(scheme, host.lower(), int(port or PORTS[scheme]), path, region)


class _Asked(Exception):
    """The request that boto3 was about to send."""


def _of_boto3(service: Service, bucket: str) -> Endpoint:
    """What boto3 makes of files, profiles and the rarer variables: a call is begun and not sent."""
    import boto3  # noqa: PLC0415  a cold start without need of it does without it
    from botocore.config import Config  # noqa: PLC0415

    def stop(request: Any, **_: Any) -> None:
        raise _Asked(request.url)

    operation, call = CALLS[service]
    what = f"find where {service} is"
    url = ""
    with translated(what):
        client = boto3.client(service, config=Config(parameter_validation=False))
        client.meta.events.register("before-send", stop)
        try:
            getattr(client, operation)(**call, **({"Bucket": bucket} if bucket else {}))
        except _Asked as asked:
            url = str(asked)
    found = _of_url(url.removesuffix("/-"), client.meta.region_name, "")
    if found is None:
        raise Misconfigured(f"{what}: the URL of the endpoint is not understood")
    prefixed = found.host.startswith("sync-") and not found.host.startswith("sync-states")
    return replace(found, host=found.host.removeprefix("sync-")) if prefixed else found


def _unproxied(found: Endpoint) -> None:
    """Raise rather than go past a proxy that boto3 would use."""
    from urllib import request  # noqa: PLC0415  as rarely

    proxies = request.getproxies_environment()
    named = proxies.get(found.scheme) or proxies.get("all")
    if named and not request.proxy_bypass_environment(  # type: ignore[attr-defined]
        found.authority, proxies
    ):
        raise Misconfigured(
            f"{found.host} is to be asked through a proxy: set MILLRACE_TRANSPORT to boto3"
        )
