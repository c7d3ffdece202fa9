"""`millrace query`: where an answer goes, and whose it is: a state's or an account's."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from infra.cli import answers
from infra.cli.answers import chosen, give
from infra.local.emulator import client
from infra.topology import LEDGER
from sinks import contracts
from tests.support import NOON, SECOND, create_table, reading
from tests.test_catalog import NEWER
from tests.test_lake import SENSORS, TELEMETRY, Pipeline, sensors

ROWS = pa.table(
    {
        "at": [datetime(2026, 11, 24, 12, tzinfo=UTC), None],
        "n": pa.array([2**53 + 1, None]),
        "ok": [True, False],
        "said": ['a "word", é\n', ""],
        "list": [[1, 2], None],
        "body": [b"\xff", b"text"],
    }
)

# ---- Formats ----


@pytest.mark.parametrize(
    ("form", "out", "as_json", "wanted"),
    [
        (None, None, False, "table"),
        (None, None, True, "json"),
        ("json", None, True, "json"),
        ("csv", None, False, "csv"),
        (None, "a.csv", False, "csv"),
        (None, "a.PARQUET", False, "parquet"),
        ("json", "a.txt", False, "json"),
        (None, "a.txt", True, "json"),
        ("csv", "a.parquet", False, "csv"),
    ],
)
def test_the_format_is_what_is_said_or_what_the_file_is_called(form, out, as_json, wanted):
    assert chosen(form, out and Path(out), as_json=as_json) == wanted


@pytest.mark.parametrize(
    ("form", "out", "as_json", "says"),
    [
        ("csv", None, True, "two formats"),
        ("parquet", None, False, "needs a file"),
        (None, "a.txt", False, "say which format"),
        (None, "a.table", False, "say which format"),
        ("table", "a.csv", False, "say which format"),
    ],
)
def test_what_is_no_format(form, out, as_json, says):
    with pytest.raises(click.UsageError, match=says):
        chosen(form, out and Path(out), as_json=as_json)


def test_parquet_is_the_answer_itself(tmp_path):
    give(ROWS, "parquet", tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").equals(ROWS)


def test_csv_reads_back_whole(tmp_path, capsys):
    give(ROWS, "csv", tmp_path / "a.csv")
    data = (tmp_path / "a.csv").read_bytes()
    found = list(csv.reader(data.decode().splitlines(keepends=True)))
    assert found == [
        ["at", "n", "ok", "said", "list", "body"],
        ["2026-11-24T12:00:00Z", str(2**53 + 1), "true", 'a "word", é\n', "[1,2]", "ff"],
        ["", "", "false", "", "", "text"],
    ]
    give(ROWS, "csv", None)
    assert capsys.readouterr().out.encode() == data


def test_json_is_one_array(tmp_path, capsys):
    give(ROWS, "json", tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert found[0] == {
        "at": "2026-11-24T12:00:00Z",
        "n": 2**53 + 1,
        "ok": True,
        "said": 'a "word", é\n',
        "list": [1, 2],
        "body": "ff",
    }
    give(ROWS, "json", None)
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.parametrize("form", answers.FORMATS)
def test_what_answers_nothing_is_given_in_every_format(form, tmp_path):
    give(pa.table({}), form, None if form == "table" else tmp_path / "a")


# ---- An account ----

BUCKET = "an-account"
Asked = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """What stands in for AWS, with a bucket and a ledger that a pipeline has written."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def account(url) -> Pipeline:
    s3, dynamodb = client("s3", url), client("dynamodb", url)
    made = Pipeline(s3, dynamodb, BUCKET)
    create_table(dynamodb, LEDGER)
    for rules in (TELEMETRY, NEWER, SENSORS):
        contracts.put(made.bucket, rules)
    hours = [reading(moment=NOON - n * 3_600 * SECOND, seq=n) for n in range(3)]
    made.deliver(TELEMETRY, [*hours, hours[0], b"{"])
    made.deliver(NEWER, [reading(seq=3)], first=200)
    made.deliver(SENSORS, [sensors(1)])
    made.settle("arn:1", received=5, delivered=4, outcome="done")
    return made


@pytest.fixture
def ask(account, url, tmp_path) -> Asked:
    """`millrace` as a user of the account runs it, in an empty folder."""
    del account
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = own | {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "infra.cli", *arguments],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def loaded(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_account_is_asked_as_a_state_is(ask):
    sql = """
        SELECT (SELECT count(*) FROM records) AS records, (SELECT count(*) FROM telemetry) AS own,
            (SELECT count(build) FROM telemetry) AS build,
            (SELECT count(*) FROM environment_sensors) AS others,
            (SELECT count(*) FROM quarantine) AS rejects, (SELECT count(*) FROM raw) AS raw
    """
    assert loaded(ask("query", sql, "--bucket", BUCKET, "--json")) == [
        {"records": 5, "own": 4, "build": 0, "others": 1, "rejects": 1, "raw": 7}
    ]


def test_contracts_and_ledger_may_be_named(ask):
    rows = loaded(
        ask(
            *("query", "FROM ledger SELECT execution, received", "--json"),
            *("--bucket", BUCKET, "--ledger", f"{LEDGER}-{BUCKET}", "--contract", "telemetry"),
        )
    )
    assert rows == [{"execution": "arn:1", "received": 5}]


def test_an_answer_is_drawn_and_written_at_once(ask, tmp_path):
    sql = "SELECT event_time, temperature FROM telemetry"
    done = ask("query", sql, "--bucket", BUCKET, "--chart", "a.svg", "--out", "a.parquet")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 4
    assert "event_time (UTC), 2026-11-24" in (tmp_path / "a.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--bucket", BUCKET, "--chart", "a.svg"], 2, "a chart needs two columns"),
        (["--bucket", BUCKET, "--chart", "a.pdf"], 2, "a chart is a .png or .svg file"),
        (["--bucket", "another"], 4, "another"),
        (["--ledger", "x"], 2, "--ledger and --contract go with --bucket"),
    ],
)
def test_what_cannot_be_asked_is_one_message(ask, arguments, code, says):
    done = ask("query", "SELECT 1 AS one", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_catalog_is_of_every_version_that_an_account_keeps(ask):
    told = loaded(ask("catalog", "--bucket", BUCKET, "--format", "json"))
    assert told["lakes"] == ["environment_sensors", "telemetry"]
    tables = {table["name"]: [c["name"] for c in table["columns"]] for table in told["tables"]}
    assert {"build", "firmware"} <= set(tables["telemetry_landing"])
    (located,) = [t["location"] for t in told["tables"] if t["name"] == "raw"]
    assert located == f"s3://{BUCKET}/raw/"
