"""Certificates are verified, by the authorities that botocore would trust."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sinks.errors import Misconfigured, Unavailable
from sinks.wire.account import Account
from sinks.wire.connection import Patience, authorities
from sinks.wire.dynamodb import WireWrites
from tests.raw_server import RawServer, hang_up, raw_server, say, whole

PUT = b'{"PutRequest":{"Item":{"pk":{"S":"p"},"sk":{"S":"s"}}}}'
TAKEN = say(whole(b'{"UnprocessedItems":{}}'))


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate that signs itself, as a file to trust, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(*[index in {0, 5} for index in range(9)])  # signs data, certificates
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / f"{name}.pem", folder / f"{name}.key"
    trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return trusted, context


def writes(server: RawServer, bundle: Path | None) -> WireWrites:
    environment = {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": server.url,
        "HOME": "/nonexistent",
    }
    made = Account(environment | ({"AWS_CA_BUNDLE": str(bundle)} if bundle else {}))
    server.clients.append(made)
    return made.writes("hot", Patience(1, 1))


def test_connections_are_kept_and_replaced_over_tls(tmp_path: Path):
    trusted, context = certificate(tmp_path, "localhost")
    with raw_server(TAKEN, TAKEN, hang_up, TAKEN, context=context) as server:
        made = writes(server, trusted)
        for _ in range(3):
            assert made.write([PUT]) == []
        assert (len(server.requests), len(server.connections)) == (4, 2)
        assert made.write_each([[PUT]] * 3) == [[]] * 3


def test_an_answer_over_tls_that_is_cut_short_is_weather(tmp_path: Path):
    trusted, context = certificate(tmp_path, "localhost")
    cut = whole(b'{"UnprocessedItems":{}}')[:-1]
    with (
        raw_server(say(cut, lasting=False), context=context) as server,
        pytest.raises(Unavailable, match="1 bytes before"),
    ):
        writes(server, trusted).write([PUT])


@pytest.mark.parametrize("name", ["localhost", "elsewhere"])
def test_who_is_not_trusted_or_somebody_else_is_told_nothing(tmp_path: Path, name: str):
    trusted, context = certificate(tmp_path, name)
    with raw_server(TAKEN, context=context) as server:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            writes(server, None if name == "localhost" else trusted).write([PUT])
        assert server.requests == []


def test_authorities_that_are_not_there_are_for_the_operator(tmp_path: Path):
    _, context = certificate(tmp_path, "localhost")
    with raw_server(TAKEN, context=context) as server:
        with pytest.raises(Misconfigured, match=r"none\.pem"):
            writes(server, tmp_path / "none.pem").write([PUT])
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            writes(server, tmp_path).write([PUT])  # a directory without any


def test_without_a_bundle_the_usual_authorities_are_trusted():
    found = authorities({})
    assert not found or Path(found).is_file()
    assert authorities({"AWS_CA_BUNDLE": "given"}) == "given"
