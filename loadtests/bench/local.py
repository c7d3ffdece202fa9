"""The benchmark's world: the endpoint on one core, and processes on the other that talk to it."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from loadtests.bench.traffic import CONTRACT
from loadtests.machine import CLIENT_CORE, ROOT, SERVER_CORE

HOST = "127.0.0.1"
BUCKET, TABLE = "bench", "bench-hot"


@dataclass(frozen=True)
class Endpoint:
    """Where AWS answers, and by whose word it is trusted."""

    port: int
    certificate: Path

    @property
    def environment(self) -> dict[str, str]:
        """That of a function which runs against it; nothing of the caller's own AWS is in it."""
        foreign = ("AWS_", "MILLRACE_", "POWERTOOLS_", "PYTHON")
        own = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        return own | {
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": str(self.certificate.parent / "bytecode"),
            "AWS_ENDPOINT_URL": f"https://{HOST}:{self.port}",
            "AWS_CA_BUNDLE": str(self.certificate),
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_SESSION_TOKEN": "bench",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "POWERTOOLS_METRICS_NAMESPACE": "Millrace",
            "POWERTOOLS_SERVICE_NAME": "bench",
            "MILLRACE_BUCKET": BUCKET,
            "MILLRACE_CONTRACT": str(CONTRACT),
            "MILLRACE_HOT_TABLE": TABLE,
            "MILLRACE_WORKFLOW": "arn:aws:states:us-east-1:000000000000:stateMachine:bench",
            "MILLRACE_TRANSFORM_SECONDS": "20",
        }

    def set(self, *, keep: bool = False, wait_ms: float = 0.0) -> None:
        """Forget everything; keep item bodies from now on; answer DynamoDB calls after a while."""
        self._ask("set", {"keep": keep, "wait_ms": wait_ms})

    def told(self) -> dict[str, Any]:
        """`state`: the last execution's input. `keys`: of objects. `calls`: BatchWriteItem."""
        return orjson.loads(self._ask("told"))  # type: ignore[no-any-return]

    def bodies(self) -> list[dict[str, Any]]:
        """BatchWriteItem requests since they are kept."""
        return orjson.loads(self._ask("bodies"))  # type: ignore[no-any-return]

    def object(self, key: str) -> bytes:
        return self._call("GET", key)

    def _ask(self, what: str, body: dict[str, Any] | None = None) -> bytes:
        return self._call("POST", f"/-/{what}", orjson.dumps(body or {}))

    def _call(self, method: str, path: str, body: bytes = b"") -> bytes:
        trusted = ssl.create_default_context(cafile=self.certificate)
        connection = http.client.HTTPSConnection(HOST, self.port, context=trusted)
        try:
            connection.request(method, path, body)
            return connection.getresponse().read()
        finally:
            connection.close()


def endpoint_of(environment: Mapping[str, str]) -> Endpoint:
    """The endpoint that a process of the benchmark was started with."""
    port = int(environment["AWS_ENDPOINT_URL"].rpartition(":")[2])
    return Endpoint(port, Path(environment["AWS_CA_BUNDLE"]))


@contextmanager
def endpoint(folder: Path) -> Iterator[Endpoint]:
    """An endpoint of its own process; its certificate is made in `folder`."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certify(certificate, key)
    command = [sys.executable, "-m", "loadtests.bench.aws", certificate, key, str(SERVER_CORE)]
    with subprocess.Popen(  # noqa: S603  our own
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None  # noqa: S101  it is a pipe
            yield Endpoint(int(server.stdout.readline()), certificate)
        finally:
            server.kill()


def certify(certificate: Path, key: Path) -> None:
    """A key and a certificate of its own for loopback, good for two days."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(HOST))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class Worker:
    """A contestant's process."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "loadtests.bench.worker", name, str(CLIENT_CORE)]
        self._process = subprocess.Popen(  # noqa: S603  our own
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, event: Path, *, tell: bool = False) -> dict[str, Any]:
        """CPU seconds by stage of one event, and what became of its records if asked."""
        return self.ask({"event": str(event), "tell": tell})

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        to, back = self._process.stdin, self._process.stdout
        assert to is not None and back is not None  # noqa: S101, PT018  they are pipes
        to.write(orjson.dumps(order) + b"\n")
        to.flush()
        answer = back.readline()
        if not answer:
            raise RuntimeError(f"a contestant died: {self._process.args!r}")
        return orjson.loads(answer)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End it: it has no more orders to wait for."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait(10)
