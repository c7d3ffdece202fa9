"""The same request, signed by botocore and by hand, has the same signature."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st

from sinks.bucket import ABSENT
from sinks.errors import Misconfigured
from sinks.wire import dynamodb, s3, stepfunctions
from sinks.wire.connection import Connection, Patience
from sinks.wire.credentials import Credentials
from sinks.wire.endpoints import Endpoint
from sinks.wire.pool import Pool
from sinks.wire.service import Request, Service
from sinks.wire.signature import Kind, Signer, stamp
from tests.support import SOME

REGIONS = st.sampled_from(["us-east-1", "eu-central-1", "ap-southeast-4", "us-gov-west-1"])
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
WHO = st.builds(Credentials, SECRETS, SECRETS, st.just("") | SECRETS)
POST = Kind("POST", {})
MOMENTS = st.integers(0, 4_102_444_800)  # 1970 to 2100
KEYS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60)


def service_of(name: str, region: str, who: Credentials, moment: float, path: str = "") -> Service:
    """A service that nobody asks: it only signs."""
    endpoint = Endpoint("https", f"{name}.{region}.amazonaws.com", 443, path, region)
    patience = Patience(1, 1)
    pool = Pool(lambda patience: Connection(endpoint, patience, ""))
    return Service(
        endpoint, Signer(name, region), lambda: who, patience, pool, clock=lambda: moment
    )


def parsed(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    return (
        method,
        path,
        {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)},
    )


def signature_of_botocore(service: Service, request: Request) -> str:
    """The Authorization header that botocore gives this request, of the same clock and keys."""
    url = f"https://{service.endpoint.authority}{service.endpoint.path}{request.path}"
    kind = request.kind
    headers = {**kind.headers, **dict(zip(kind.varying, request.values, strict=True))}
    asked = AWSRequest(kind.method, url, headers, request.body)
    name = service.signer._service
    kind: type[Any] = S3SigV4Auth if name == "s3" else SigV4Auth
    signer = kind(_Frozen(service.identity()), name, service.endpoint.region)
    if request.payload:
        signer.payload = lambda _: request.payload
    with pytest.MonkeyPatch.context() as patch:
        now = datetime.fromtimestamp(service.clock(), UTC).replace(tzinfo=None)
        patch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: now)
        signer.add_auth(asked)
    return str(asked.headers["Authorization"])


class _Frozen:
    """Credentials as botocore's signers take them."""

    def __init__(self, who: Credentials) -> None:
        self.access_key, self.secret_key, self.token = who.access_key, who.secret_key, who.token

    def get_frozen_credentials(self) -> _Frozen:
        return self


def compare(service: Service, request: Request):
    method, sent, headers = parsed(service.head_of(request))
    kind = request.kind
    assert (method, sent) == (kind.method, service.endpoint.path + request.path)
    assert headers["x-amz-date"] == stamp(int(service.clock()))
    for name, value in (*kind.headers.items(), *zip(kind.varying, request.values, strict=True)):
        assert headers[name] == value
    assert headers.get("x-amz-security-token", "") == service.identity().token
    assert headers["authorization"] == signature_of_botocore(service, request)
    if kind.method != "GET":
        assert headers["content-length"] == str(len(request.body))


def services(name: str, path: str = "") -> st.SearchStrategy[Service]:
    return st.builds(service_of, st.just(name), REGIONS, WHO, MOMENTS, st.just(path))


@SOME
@given(services("dynamodb"), st.lists(st.binary(max_size=50), max_size=3))
def test_puts_are_signed_as_botocore_signs_them(service, puts):
    compare(service, dynamodb.WireWrites(service, "hot").request(puts))


class Told(s3.WireObjects):
    """Tells what it would ask."""

    def _asked(self, request: Request, what: str) -> Any:
        del what
        raise Asked(request)


class Asked(Exception):
    """A request."""


@SOME
@given(services("s3") | services("s3", "/some.bucket"), KEYS, st.binary(max_size=50), st.booleans())
def test_objects_are_signed_as_botocore_signs_them(service, key, data, put):
    objects = Told(service, "some.bucket", None)  # type: ignore[arg-type]
    with pytest.raises(Asked) as asked:
        objects.put(key, data, ABSENT) if put else objects.get(key)
    compare(service, asked.value.args[0])


@SOME
@given(services("states"), st.text(max_size=50))
def test_executions_are_signed_as_botocore_signs_them(service, state):
    body = state.encode("utf-8", "surrogatepass")
    compare(service, Request(stepfunctions.START, "/", body))


@SOME
@given(st.data())
def test_what_is_kept_of_earlier_requests_signs_no_other(data: st.DataObject):
    whos = [Credentials("a", "s"), Credentials("a", "t"), Credentials("a", "s", "to%ken")]
    kinds = [Kind("POST", {"x-amz-target": name}) for name in "ab"]
    kinds.append(Kind("PUT", {"x-amz-target": "100%s"}, ("if-match", "x-amz-checksum-crc32")))
    service = service_of("dynamodb", "eu-central-1", whos[0], 0, "/prefix")
    for _ in range(6):
        who, now = data.draw(st.sampled_from(whos)), data.draw(st.sampled_from([0, 0.5, 1, 86_400]))
        vars(service).update(identity=lambda who=who: who, clock=lambda now=now: now)
        kind, path = data.draw(st.sampled_from(kinds)), data.draw(st.sampled_from(["/", "/x"]))
        body = data.draw(st.binary(max_size=2))
        values = tuple(data.draw(st.sampled_from(["1", "%s", ""])) for _ in kind.varying)
        compare(service, Request(kind, path, body, values=values))
    for template in service._templates.values():
        assert "POST" not in repr(template)
        assert "to%ken" not in repr(template)


def test_a_key_is_derived_once_for_each_day_and_secret(monkeypatch: pytest.MonkeyPatch):
    derived = []

    def digest(key: bytes, text: bytes, name: str) -> bytes:
        derived.append(text)
        return hashlib.new(name, key + text).digest()

    monkeypatch.setattr("hmac.digest", digest)
    signer = Signer("dynamodb", "eu-central-1")

    def sign(secret: str, day: str) -> bytes:
        who = Credentials("id", secret)
        template = signer.template(who, POST, "h", "", day)
        return template.head("/", (), f"{day}T000000Z", "p", 0)

    signed = [sign("a", "20261124"), sign("a", "20261124"), sign("a", "20261125")]
    signed += [sign("b", "20261125"), sign("a", "20261124")]
    assert derived.count(b"aws4_request") == 4
    assert signed[0] == signed[1] == signed[4]
    assert len(set(signed)) == 3


# What no header may hold


@pytest.mark.parametrize("bad", ["a\r\nx-evil: 1", "a\nb", "a\0", "é", " a", "a ", "\x7f"])
def test_a_header_cannot_be_smuggled_in_and_no_secret_is_told(bad: str):
    who = Credentials("id", "the-secret", f"the-token{bad}")
    service = service_of("dynamodb", "eu-central-1", who, 0)
    if bad != " a":
        with pytest.raises(Misconfigured, match="x-amz-security-token") as raised:
            service.head_of(Request(POST, "/"))
        assert "the-token" not in str(raised.value)
    with pytest.raises(Misconfigured, match="x-amz-target"):
        service.head_of(Request(Kind("POST", {"x-amz-target": bad}), "/"))
    with pytest.raises(Misconfigured, match="header"):
        service_of("s3", "x", Credentials("id", "s"), 0).head_of(
            Request(Kind("PUT", {}, ("if-match",)), "/", values=(bad,))
        )
    with pytest.raises(Misconfigured, match="access key"):
        service_of("dynamodb", "x", Credentials(f"id{bad}x", "s"), 0).head_of(Request(POST, "/"))


@pytest.mark.parametrize("bad", ["", "x", "/a b", "/a\r\n", "/é"])
def test_a_path_is_one_word(bad: str):
    with pytest.raises(Misconfigured, match="path"):
        service_of("s3", "x", Credentials("id", "s"), 0).head_of(Request(s3.GET, bad))


def test_secrets_are_in_no_repr():
    told = repr(Credentials("id", "the-secret", "the-token"))
    assert "id" in told
    assert "the-" not in told
