"""The whole path on this machine, through the command line, as a user has it.

Each command is a process of its own. Pipelines are shared, because starting one takes seconds.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from math import fsum
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.local.embedded import served
from infra.local.state import State
from infra.topology import pipeline
from sinks.table import Table

ROOT = Path(__file__).parent.parent
SENSORS = ROOT.parent / "shared" / "data" / "environment-sensors.ndjson"
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.02
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
FLEET = """
name = "fleet"

[identity]
device = "device"
event_time = "taken_at"
record_id = ["device", "taken_at"]

[[field]]
name = "device"
path = "sensor"
type = "string"

[[field]]
name = "taken_at"
path = "at"
type = "timestamp"
format = "iso8601"

[[field]]
name = "temperature"
path = "celsius"
type = "float64"
required = true
min = -60
max = 125

[[field]]
name = "mode"
type = "string"
allowed = ["eco", "boost"]
default = "eco"
"""
MALFORMED = {  # text all of it, so that SQS takes it too
    '{"sensor": "x", "at": "2026-01-01T00:00:00Z", "celsius": 1': "malformed_json",
    "12": "not_an_object",
    '"text"': "not_an_object",
    '{"sensor": "x", "at": "2026-01-01T00:00:00Z"}': "missing_field",
    '{"sensor": 7, "at": "2026-01-01T00:00:00Z", "celsius": 1}': "wrong_type",
    '{"sensor": "x", "at": "2026-01-01T00:00:00Z", "celsius": 999}': "out_of_range",
    '{"sensor": "x", "at": "2026-01-01 12:00", "celsius": 1}': "bad_timestamp",
    '{"sensor": "x", "at": "2026-01-01T00:00:00Z", "celsius": 1, "mode": "x"}': "not_allowed",
    '{"sensor": "x", "at": "2026-01-01T00:00:00Z", "celsius": NaN}': "not_finite",
    '{"sensor": "x", "at": "2999-01-01T00:00:00Z", "celsius": 1}': "future_time",
}


# ---- Commands ----


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What the last line of stdout holds."""
        return json.loads(self.out.splitlines()[-1])


class Running:
    """A command that runs; its output goes to files, so that no pipe can fill up."""

    def __init__(self, folder: Path, *arguments: str, stdin: bytes = b"") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "in").write_bytes(stdin)
        self.folder = folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "COLUMNS"))}
        with (
            (folder / "in").open("rb") as source,
            (folder / "out").open("wb") as out,
            (folder / "err").open("wb") as err,
        ):
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", *arguments],
                env={**inherited, "PYTHONPATH": str(ROOT)},
                cwd=folder,
                stdin=source,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def until(self, text: str) -> str:
        """Wait for a line of stdout that matches; returns the first group of the match."""
        pattern = re.compile(text, re.MULTILINE)
        until = time.monotonic() + PATIENCE_SECONDS
        while (match := pattern.search(self.out)) is None:
            assert self.process.poll() is None, (self.folder / "err").read_text()
            assert time.monotonic() < until, f"no {text!r} in {self.out}"
            time.sleep(POLL_SECONDS)
        return match[1]

    def wait(self) -> Done:
        try:
            code = self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        done = Done(code, self.out, (self.folder / "err").read_text())
        assert "Traceback" not in done.out + done.err
        return done


class Home:
    """A folder with a state, a contract, and commands on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.contract = folder / "fleet.toml"
        self.contract.write_text(FLEET)
        self._number = 0

    def start(self, command: str, *arguments: str, stdin: bytes = b"") -> Running:
        self._number += 1
        here = self.folder / f"{self._number}-{command}"
        return Running(here, command, *arguments, "--state", str(self.state), stdin=stdin)

    def run(self, command: str, *arguments: str, stdin: bytes = b"") -> Done:
        return self.start(command, *arguments, stdin=stdin).wait()

    def ingest(self, lines: Sequence[str], *arguments: str) -> Running:
        file = self.folder / f"{self._number}.ndjson"
        file.write_text("\n".join(lines) + "\n")
        return self.start(
            "ingest", str(file), "--contract", str(self.contract), "--json", *arguments
        )

    def query(self, sql: str) -> list[dict[str, Any]]:
        done = self.run("query", sql, "--json")
        assert (done.code, done.err) == (0, "")
        assert len(done.out.splitlines()) == 1
        rows: list[dict[str, Any]] = done.json
        return rows

    def processes(self) -> list[str]:
        """Command lines of all processes that have to do with this state."""
        found = []
        for place in Path("/proc").iterdir():
            if not place.name.isdigit() or int(place.name) == os.getpid():
                continue
            try:
                told = (place / "cmdline").read_bytes()
                if str(self.state).encode() in told + (place / "environ").read_bytes():
                    found.append(told.replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return found

    def workers(self, handler: str) -> list[int]:
        """Process numbers of those that run a handler, or another module, on this state."""
        found = []
        for place in Path("/proc").iterdir():
            try:
                told = (place / "cmdline").read_bytes() if place.name.isdigit() else b""
                if handler.encode() in told and str(self.state).encode() in (
                    told + (place / "environ").read_bytes()
                ):
                    found.append(int(place.name))
            except OSError:
                continue
        return found


def measured(devices: str, count: int, *, malformed: bool = True) -> list[str]:
    """Lines of a fleet: good ones, three repeats, one conflict, and one of each malformed kind."""
    lines = [
        json.dumps(
            {
                "sensor": f"{devices}-{number % 7}",
                "at": (NEW_YEAR + timedelta(seconds=number)).isoformat(),
                "celsius": number % 1_000 / 8,
                "mode": ("eco", "boost")[number % 2],
            }
        )
        for number in range(count)
    ]
    lines += [lines[0], lines[5], lines[5], lines[9].replace('"celsius": 1.125', '"celsius": 1.0')]
    if malformed:
        lines[3:3] = ["", *MALFORMED, "   "]
    return lines


def expected(count: int, *, malformed: bool = True) -> dict[str, Any]:
    """The account of `measured`, without what depends on the machine."""
    reasons = Counter(MALFORMED.values()) if malformed else Counter[str]()
    return {
        "sent": count + 4 + reasons.total(),
        "delivered": count + 4,
        "dropped": 0,
        "parked": 0,
        "quarantined": {**dict(sorted(reasons.items())), "total": reasons.total()},
        "unaccounted": 0,
        "repeats": 3,
        "conflicts": 1,
        "hot_items": count + 1,
        "parquet_rows": count + 4,
        "parquet_rows_distinct": count + 1,
    }


def accounted(done: Done, want: dict[str, Any]) -> None:
    assert done.code == 0, done.err
    told = done.json
    assert {name: told[name] for name in want} == want
    assert told["files"] >= 1
    assert told["bytes_per_row"] > 0
    assert told["records_per_second"] > 0


# ---- A pipeline that is up ----


@dataclass(frozen=True)
class Up:
    """`millrace up` in the background."""

    home: Home
    command: Running
    url: str


@pytest.fixture(scope="module")
def up(tmp_path_factory) -> Iterator[Up]:
    """A pipeline for many tests. At their end its emulator is killed, and it has to say so."""
    home = Home(tmp_path_factory.mktemp("up"))
    command = home.start("up", "--contract", str(home.contract))
    try:
        yield Up(home, command, command.until(r"endpoint +(http://127\.0\.0\.1:\d+)$"))
    finally:
        kill(int((home.state / "emulator.pid").read_text()))
        done = command.wait()
    assert done.code == 4
    assert re.fullmatch(r"millrace: the emulator has died; .*logs/emulator.log.*\n", done.err)
    assert home.processes() == []


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Home:
    """A state with records by Kinesis, whose pipeline has ended."""
    home = Home(tmp_path_factory.mktemp("stopped"))
    accounted(home.ingest(measured("old", 300)).wait(), expected(300))
    assert home.processes() == []
    return home


def test_a_state_with_the_fast_table(tmp_path):
    """It is told no more after the start: whoever reads the state finds the items where they are.

    Its process is killed and costs nothing. Items do not move: the other table is refused.
    """
    home = Home(tmp_path)
    up = home.start("up", "--contract", str(home.contract), "--table", "fast")
    up.until(r"table +(http://127\.0\.0\.1:\d+)$")
    accounted(home.ingest(measured("fast", 300), "--table", "fast").wait(), expected(300))
    refused = home.ingest(measured("fast", 300), "--table", "emulator").wait()
    assert refused.code == 2
    assert "was begun with --table fast" in refused.err
    (table,) = home.workers("infra.local.fasttable.server")
    kill(table)
    done = up.wait()
    assert done.code == 4
    assert re.fullmatch(r"millrace: the table has died; .*logs/table.log.*\n", done.err)
    assert home.processes() == []
    hot = home.run(
        "hot", "fast-1", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z"
    )
    assert (hot.code, hot.err) == (0, "")
    assert home.query("SELECT sum(hot_written) AS n FROM ledger")[0]["n"] >= 301
    accounted(home.ingest(measured("more", 100), "--via", "sqs").wait(), expected(100))
    proof = home.run("verify", "--json")
    assert proof.json["wrong"] == {"missing": 0, "twice": 0, "conflict": 2, "unexplained": 0}


def test_a_contract_that_keeps_each_devices_latest(tmp_path):
    """Whatever order readings come in, the newest stands; is it rejected later, the one before."""
    home = Home(tmp_path)
    home.contract.write_text(FLEET + '[hot]\nlayout = "latest"\n')
    up = home.start("up", "--contract", str(home.contract), "--table", "fast")
    up.until(r"(endpoint)")
    lines = [line for line in measured("d", 700)[:-4] if line.strip()]
    random.Random(1).shuffle(lines)
    for part in (lines[:200], lines[200:]):
        malformed = Counter(MALFORMED[line] for line in part if line in MALFORMED)
        good = len(part) - malformed.total()
        accounted(
            home.ingest(part).wait(),
            {
                "sent": len(part),
                "delivered": good,
                "quarantined": {**dict(sorted(malformed.items())), "total": malformed.total()},
                "unaccounted": 0,
                "hot_items": 7,
                "hot_expected": 7,
                "parquet_rows_distinct": good,
            },
        )
    up.signal(signal.SIGINT)
    assert up.wait().code == 130
    newest = {f"d-{number % 7}": number / 8 for number in range(693, 700)}
    assert latest(home) == newest
    (found,) = home.run("hot", "d-6", "--json").json
    assert (found["taken_at"], found["temperature"]) == ("2026-01-01T00:11:39.000000Z", 87.375)
    assert home.run("verify").code == 0
    stricter = home.folder / "stricter.toml"
    rules = "version = 2\n" + home.contract.read_text()
    stricter.write_text(rules.replace("max = 125", "max = 87.3"))
    span = ("--from", "2026-01-01", "--to", "2100-01-01", "--contract", str(stricter), "--json")
    told = home.run("reprocess", *span)
    assert (told.code, told.json["hot_keys_removed"]) == (0, 1), told.err
    assert latest(home) == newest | {"d-6": 692 / 8}
    assert home.run("verify").code == 0


def latest(home: Home) -> dict[str, float]:
    """The temperature of each device's item."""
    with served(State(home.state)) as client:
        items = list(Table(client("dynamodb"), pipeline("fleet", "fleet").hot_table.name).scan())
    assert {item["sk"]["S"] for item in items} == {"latest"}
    return {item["pk"]["S"]: float(item["temperature"]["N"]) for item in items}


def test_ingest_by_every_way_at_once(up):
    """Beside a running pipeline, and beside each other: each has the account of its own records."""
    array = f"[{','.join(filter(str.strip, measured('array', 50, malformed=False)))}]"
    running = {
        "kinesis": up.home.ingest(measured("kinesis", 400)),
        "aggregate": up.home.ingest(measured("aggregate", 400), "--aggregate"),
        "sqs": up.home.ingest(measured("sqs", 100), "--via", "sqs"),
        "stdin": up.home.start(
            *("ingest", "-", "--contract", str(up.home.contract), "--json"),
            stdin=array.encode(),
        ),
    }
    accounts = {way: command.wait() for way, command in running.items()}
    accounted(accounts["kinesis"], expected(400))
    accounted(accounts["aggregate"], expected(400))
    accounted(accounts["sqs"], expected(100))
    accounted(accounts["stdin"], expected(50, malformed=False))
    assert [done.err for done in accounts.values()] == [""] * 4
    people_can_read_it(up.home)
    kept = up.home.query(
        "SELECT split_part(device, '-', 1) AS way, count(*) AS n, count(DISTINCT device) AS devices"
        ", min(taken_at) AS first FROM records GROUP BY ALL ORDER BY ALL"
    )
    first = "2026-01-01T00:00:00Z"
    assert [row for row in kept if row["way"] in ("aggregate", "array", "kinesis", "sqs")] == [
        {"way": "aggregate", "n": 401, "devices": 7, "first": first},
        {"way": "array", "n": 51, "devices": 7, "first": first},
        {"way": "kinesis", "n": 401, "devices": 7, "first": first},
        {"way": "sqs", "n": 101, "devices": 7, "first": first},
    ]
    assert "0 retried" not in up.command.out  # the line of counts is there, in its own words
    up.command.until(r"(delivered [1-9][0-9,]*)")


def people_can_read_it(home: Home) -> None:
    """The same file again, as it looks on a terminal: the account, rows and readings."""
    file = home.folder / "again.ndjson"
    file.write_text("\n".join(measured("kinesis", 400)))
    again = home.run("ingest", str(file), "--contract", str(home.contract))
    assert again.code == 0
    for line in (
        r" +sent +414 +messages",
        r" +delivered +404 +with rows in landing",
        r" +quarantined +10 +set aside",
        r" +not_an_object +2 *",
        r" +repeats +3 +rows beyond the first",
        r" +hot items +401 +read from the table; 401 expected",
    ):
        assert re.search(f"^{line}", again.out, re.MULTILINE), line
    assert "\nEvery record is accounted for.\n" in again.out
    quarantine = home.run("query", "SELECT _reason, _body FROM quarantine ORDER BY ALL")
    assert quarantine.code == 0
    for body, reason in MALFORMED.items():
        assert re.search(f"^ +{reason} +{re.escape(body)} *$", quarantine.out, re.MULTILINE)
    span = ("--from", "2026-01-01T00:00:04Z", "--to", "2026-01-01T00:00:12Z")
    found = home.run("hot", "kinesis-4", *span)
    assert [line.split() for line in found.out.split("\n")[3:5]] == [
        ["kinesis-4", "2026-01-01T00:00:04.000000Z", "0.5", "eco"],
        ["kinesis-4", "2026-01-01T00:00:11.000000Z", "1.375", "boost"],
    ]
    nothing = home.run("hot", "kinesis-4", "--last", "1h")
    assert (nothing.code, nothing.out) == (0, "")
    assert re.fullmatch(r"no reading of kinesis-4 between .*; widen it.*\n", nothing.err)


def test_compactions_beside_a_running_pipeline(up):
    """They are killed, run at once and again; what is asked meanwhile is what was asked before."""
    asked = "SELECT count(*) AS n, sum(temperature) AS t FROM records WHERE device LIKE 'early-%'"
    accounted(up.home.ingest(measured("early", 400)).wait(), expected(400))
    before = up.home.query(asked)
    late = up.home.ingest(measured("later", 2_000))
    dying = up.home.start("compact")
    time.sleep(random.uniform(0.5, 2))
    dying.process.kill()
    dying.process.wait()
    assert up.home.query(asked) == before
    both = [up.home.start("compact", "--rows-max", "700", "--json") for _ in range(2)]
    codes = {command.wait().code for command in both}
    assert codes <= {0, 4}, "the slower is told that it was overtaken"
    accounted(late.wait(), expected(2_000))
    assert up.home.query(asked) == before
    done = up.home.run("compact", "--json")
    assert done.code == 0, done.err
    [fleet] = [one for one in done.json if one["contract"] == "fleet"]
    [told] = up.home.query("SELECT lake_rows, fresh_rows FROM freshness WHERE _contract = 'fleet'")
    [kept] = up.home.query("SELECT count(*) AS n FROM fleet")
    assert told == {"lake_rows": kept["n"], "fresh_rows": 0}
    assert fleet["lake_rows"] == kept["n"]
    assert up.home.query(asked) == before
    wrong = up.home.run("verify", "--json").json["wrong"]
    assert {kind for kind, count in wrong.items() if count} <= {"conflict"}, "as was planted"


def test_a_producer_pushes_to_the_printed_endpoint(up):
    message = re.search(r"echo '(.+)' > message.json", up.command.out)
    assert message is not None
    body = json.loads(message[1])
    device = body["sensor"]
    session = boto3.Session("any", "any", region_name="us-east-1")
    kinesis = session.client("kinesis", endpoint_url=up.url)
    stream = up.command.until(r"stream +(\S+)$")
    records = [{"PartitionKey": device, "Data": message[1].encode()}, *good_and_bad()]
    answer = kinesis.put_records(StreamName=stream, Records=records)
    assert answer["FailedRecordCount"] == 0
    sqs = session.client("sqs", endpoint_url=up.url)
    queue = up.command.until(r"queue +(\S+)$")
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(body | {"celsius": 1.5}))
    until = time.monotonic() + PATIENCE_SECONDS
    temperatures: list[float] = []
    while len(temperatures) < 2:
        assert time.monotonic() < until
        rows = up.home.query("SELECT device, temperature FROM records")
        temperatures = sorted(row["temperature"] for row in rows if row["device"] == device)
    assert temperatures == sorted([body["celsius"], 1.5])
    found = up.home.run("hot", device, "--from", "2026-01-01", "--to", "2026-12-31", "--json")
    assert sorted(item["temperature"] for item in found.json) == sorted([body["celsius"], 1.5])


def good_and_bad() -> list[dict[str, Any]]:
    return [
        {"PartitionKey": "k", "Data": b"\xff\x00"},
        {
            "PartitionKey": "k",
            "Data": b'{"sensor": "by hand", "at": "2026-02-02T00:00:00Z", "celsius": 1}',
        },
    ]


def test_a_second_pipeline_on_the_state_is_told_who_has_it(up):
    again = up.home.run("up", "--contract", str(up.home.contract))
    assert again.code == 4
    assert f"in use by process {up.command.process.pid} (fleet)" in again.err
    assert again.err.count("\n") == 1
    other = up.home.run("ingest", str(up.home.contract), "--contract", "telemetry")
    assert other.code == 4
    assert f"process {up.command.process.pid} runs fleet" in other.err
    edited = up.home.folder / "edited.toml"
    edited.write_text(FLEET.replace("max = 125", "max = 126"))
    newer = up.home.run("ingest", str(edited), "--contract", str(edited))
    assert newer.code == 4
    assert "another version" in newer.err
    demo = up.home.run("demo")
    assert demo.code == 4
    assert "in use by process" in demo.err


def test_time_runs_out(up):
    """The queue's window alone is a second, and only then is anything delivered."""
    done = up.home.ingest(measured("late", 100), "--via", "sqs", "--timeout", "1").wait()
    assert done.code == 3
    assert done.json["unaccounted"] == 114
    assert done.err == "millrace: time ran out: 114 positions have no fate yet\n"


def test_sql_that_cannot_be_answered(up):
    done = up.home.run("query", "SELECT nothing FROM records")
    assert done.code == 2
    assert done.err.startswith("millrace: Binder Error")


def test_a_question_can_be_given_up(up):
    endless = "SELECT count(*) FROM range(1000000000) a, range(1000000) b"
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    questions = [up.home.start("query", endless) for _ in numbers]
    for question, number in zip(questions, numbers, strict=True):
        await_work(question.process.pid, 1.5)  # what it takes to begin is half a second or so
        question.signal(number)
    for question in questions:
        done = question.wait()
        assert done.code == 130
        assert re.fullmatch(r"\n?millrace: interrupted.*\n", done.err)


def test_output_may_end_before_we_do(up):
    command = (
        f"{sys.executable} -m infra.cli query 'FROM range(9999)' --json --state {up.home.state}"
    )
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -c 5; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.stdout, done.stderr) == ('[{"ra0\n', "")


# ---- A state that is stopped ----


def test_every_view_of_a_stopped_state_can_be_asked(stopped):
    [row] = stopped.query(
        "SELECT (SELECT count(*) FROM records) AS records, (SELECT count(*) FROM fleet) AS fleet,"
        " (SELECT count(*) FROM quarantine) AS quarantine, (SELECT count(*) FROM raw) AS raw,"
        " (SELECT sum(received - length(retry)) FROM ledger) AS ledger"
    )
    assert row == {"records": 301, "fleet": 301, "quarantine": 10, "raw": 314, "ledger": 314}
    assert stopped.processes() == []


def test_readings_of_a_stopped_state_can_be_asked(stopped):
    asked = ("--from", "2026-01-01T00:00:07Z", "--to", "2026-01-01T00:00:21Z")
    found = stopped.run("hot", "old-0", *asked, "--json")
    assert found.json == [
        {"device": "old-0", "taken_at": at, "temperature": number / 8, "mode": mode}
        for number, at, mode in (
            (7, "2026-01-01T00:00:07.000000Z", "boost"),
            (14, "2026-01-01T00:00:14.000000Z", "eco"),
            (21, "2026-01-01T00:00:21.000000Z", "boost"),
        )
    ]
    assert stopped.processes() == []


def test_the_catalog_of_a_stopped_state_has_the_columns_of_its_records(stopped):
    told = json.loads(stopped.run("catalog", "--format", "json").out)
    (landing,) = [table for table in told["tables"] if table["name"] == "fleet_landing"]
    (row,) = stopped.query("SELECT * FROM fleet LIMIT 1")
    assert [column["name"] for column in landing["columns"]] == list(row)
    assert stopped.processes() == []


def test_drift_of_a_stopped_state_is_told_with_patches(stopped):
    told = stopped.run("contract", "drift", "--json").json
    found = {(one["what"], one["field"]): one["count"] for one in told}
    assert sum(found.values()) == 10
    assert {one["contract"] for one in told} == {"fleet"}
    shown = stopped.run("contract", "drift")
    assert shown.code == 0
    assert f"fleet: {len(found)} drifts" in shown.out
    assert stopped.processes() == []


# ---- Real messages ----


@pytest.mark.skipif(not SENSORS.exists(), reason="the shared data file is not here")
def test_real_messages_are_all_there(tmp_path):
    home = Home(tmp_path)
    done = home.run("ingest", str(SENSORS), "--contract", "environment-sensors", "--json")
    want = {"sent": 9_995, "delivered": 9_995, "quarantined": {"total": 0}, "repeats": 0}
    accounted(done, {**want, "conflicts": 0, "hot_items": 9_995, "parquet_rows_distinct": 9_995})
    columns = ("co", "lpg", "smoke", "temperature", "humidity")
    told = home.query(
        "SELECT device_id, count(*) AS n, min(event_time) AS low, max(event_time) AS high,"
        " list(co) AS co, list(lpg) AS lpg, list(smoke) AS smoke,"
        " list(temperature) AS temperature, list(humidity) AS humidity,"
        " count(*) FILTER (light) AS light, count(*) FILTER (motion) AS motion"
        " FROM records GROUP BY device_id"
    )
    by_device = messages_by_device()
    assert {row["device_id"] for row in told} == by_device.keys()
    for row in told:
        sent = by_device[row["device_id"]]
        assert row["n"] == len(sent)
        moments = sorted(micros(message["ts"]) for message in sent)
        assert (row["low"], row["high"]) == (iso(moments[0]), iso(moments[-1]))
        for name in columns:
            values = [float(m["data"]["temp" if name == "temperature" else name]) for m in sent]
            assert (min(row[name]), max(row[name])) == (min(values), max(values))
            assert fsum(row[name]) == fsum(values)
        assert row["light"] == sum(message["data"]["light"] for message in sent)
        assert row["motion"] == sum(message["data"]["motion"] for message in sent)
    device, low, high = "5e:44:3b:f3:79:c8", "2020-07-13T01:00:00Z", "2020-07-13T04:00:00Z"
    found = home.run("hot", device, "--from", low, "--to", high, "--json").json
    assert [(item["event_time"], item["temperature"], item["co"]) for item in found] == [
        (moment, float(message["data"]["temp"]), float(message["data"]["co"]))
        for moment, message in sorted(
            ((iso(micros(m["ts"])), m) for m in by_device[device]), key=lambda pair: pair[0]
        )
        if low <= moment <= high
    ]
    assert len(found) > 100
    assert home.processes() == []


@cache
def messages_by_device() -> dict[str, list[dict[str, Any]]]:
    """The data file as the standard library reads it, numbers as they are written."""
    found = defaultdict(list)
    for line in SENSORS.read_text().splitlines():
        message = json.loads(line, parse_float=Decimal)
        found[message["device_id"]].append(message)
    return found


def micros(seconds: Decimal) -> int:
    return round(seconds * 1_000_000)


def iso(moment: int) -> str:
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(microseconds=moment):%FT%T.%fZ}"


# ---- What dies, what comes after, and what is interrupted ----


def test_a_stopped_state_goes_on_and_killed_workers_lose_nothing(stopped, tmp_path):
    home = Home(tmp_path)
    shutil.copytree(stopped.state, home.state)
    before = set(deliveries(home))
    command = home.ingest(measured("killed", 5_000), "--timeout", "100")
    killed: set[int] = set()
    until = time.monotonic() + PATIENCE_SECONDS
    while len(killed) < 3:
        assert time.monotonic() < until
        assert command.process.poll() is None, "it has ended before three workers could be killed"
        if set(deliveries(home)) - before:  # one is on its way
            for handler in ("ingest.handlers.transform", "ingest.handlers.hot"):
                killed.update(kill(worker) for worker in home.workers(handler)[:1])
        time.sleep(POLL_SECONDS)
    accounted(command.wait(), expected(5_000))
    assert home.processes() == []
    [row] = home.query(
        "SELECT (SELECT count(*) FROM records WHERE device LIKE 'old-%') AS old,"
        " (SELECT count(*) FROM records WHERE device LIKE 'killed-%') AS killed,"
        " (SELECT count(*) FROM raw WHERE _body::VARCHAR LIKE '%old-%') AS read"
    )
    # The checkpoint lies behind what was there before: none of it was read again.
    assert row == {"old": 301, "killed": 5_001, "read": 304}


def deliveries(home: Home) -> Iterator[Path]:
    return (home.state / "s3").glob("*/millrace/raw/*/*/*")


def kill(process: int) -> int:
    os.kill(process, signal.SIGKILL)
    return process


def test_the_demo_on_a_used_state_proves_every_record(stopped, tmp_path):
    home = Home(tmp_path)
    shutil.copytree(stopped.state, home.state)
    done = home.run("demo", "--records", "1000", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert told["problems"] == []
    assert told["sent"] == 1_000 == sum(told["sent_by"].values())
    assert all(told["sent_by"][way] > 0 for way in ("plain", "kpl", "sqs"))
    quarantined = dict(told["quarantined"])
    assert quarantined.pop("total") == sum(quarantined.values())
    assert quarantined == told["planted"]
    assert len(quarantined) >= 8
    assert told["delivered"] + sum(quarantined.values()) == 1_000
    assert told["repeats"] == told["planted_repeats"] > 0
    distinct = told["delivered"] - told["repeats"]
    assert told["hot_items"] == told["parquet_rows_distinct"] == distinct
    assert told["dropped"] == told["parked"] == told["unaccounted"] == told["conflicts"] == 0
    assert told["ceiling"]["records_per_second"] > 0
    assert home.processes() == []
    kept = [path.name for path in (home.state / "contracts").iterdir()]
    assert kept == ["telemetry.toml"]


def test_ctrl_c_at_any_moment(tmp_path):
    """While a demo imports, starts, measures and pushes; pressed twice; and while `up` waits.

    `up` is started as a shell starts what runs in the background: with SIGINT ignored.
    """
    homes = {name: Home(made(tmp_path / name)) for name in ("0.2", "1.5", "4", "8", "up")}
    importing = homes["0.2"].start("demo")
    await_imports(importing.process.pid)
    importing.signal(signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        waiting = homes["up"].start("up")
    finally:
        signal.signal(signal.SIGINT, before)
    demos = {seconds: homes[seconds].start("demo") for seconds in ("1.5", "4", "8")}
    started = time.monotonic()
    for seconds, demo in demos.items():
        time.sleep(max(started + float(seconds) - time.monotonic(), 0))
        demo.signal(signal.SIGINT)
        if seconds == "4":
            time.sleep(0.3)
            if demo.process.poll() is None:
                demo.signal(signal.SIGINT)
    waiting.until(r"(behind)")
    waiting.signal(signal.SIGINT)
    for name, command in {"0.2": importing, **demos, "up": waiting}.items():
        done = command.wait()
        assert done.code == 130, (name, done.err)
        assert re.fullmatch(r"\n?millrace: interrupted.*\n", done.err), (name, done.err)
        assert homes[name].processes() == [], name


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def await_work(pid: int, seconds: float) -> None:
    """Wait until the process has had so much of a processor's time."""
    until = time.monotonic() + PATIENCE_SECONDS
    worked = 0.0
    while worked < seconds:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        worked = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        assert time.monotonic() < until
        time.sleep(POLL_SECONDS)


def await_imports(pid: int) -> None:
    """Wait until the process has begun to import the packages it needs."""
    until = time.monotonic() + PATIENCE_SECONDS
    while b"site-packages" not in Path(f"/proc/{pid}/maps").read_bytes():
        assert time.monotonic() < until
        time.sleep(0.005)
