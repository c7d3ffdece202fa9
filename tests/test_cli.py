"""The command line says what is wrong, in one message and with the right exit code.

Nothing is started here: what a user can get wrong is found out before.
"""

from __future__ import annotations

import gzip
import logging
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from infra.cli import commands, run, shown
from infra.cli.hot import span
from infra.cli.ingest import device_keys, read_bodies
from infra.cli.moments import DURATION, MOMENT
from infra.local import preflight
from infra.local.state import State
from infra.topology import BUCKET
from tests.support import reading
from transform.contract_file import load_contract

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
Millrace = Callable[..., Result]


@pytest.fixture
def millrace(tmp_path, monkeypatch) -> Iterator[Millrace]:
    """Run a command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }

    def invoke(*arguments: str, stdin: bytes | None = None) -> Result:
        result = CliRunner().invoke(
            commands.group, arguments, input=stdin, prog_name="millrace", catch_exceptions=False
        )
        assert "Traceback" not in result.output
        return result

    yield invoke
    logging.disable(logging.NOTSET)
    for number, handler in before.items():
        signal.signal(number, handler)


def file_of(content: bytes, name: str = "records.ndjson") -> str:
    Path(name).write_bytes(content)
    return name


# ---- ingest: what to push ----


@pytest.mark.parametrize(
    ("contract", "says"),
    [
        ("telemetri", r"no contract is called 'telemetri'; shipped are environment-sensors, tel"),
        ("./none.toml", r"none.toml: cannot be read: No such file or directory"),
        ("none.toml", r"none.toml: cannot be read"),
        ("", r"no contract is called ''"),
    ],
)
def test_a_contract_that_is_not_there(millrace, contract, says):
    file = file_of(reading())
    result = millrace("ingest", file, "--contract", contract)
    assert result.exit_code == 2
    assert re.search(says, result.stderr)
    assert result.stderr.startswith("millrace: ")
    assert result.stderr.count("\n") == 1


def test_a_broken_contract_is_told_with_file_and_key(millrace):
    Path("mine.toml").write_text('name = "mine"\n[identity]\ndevice = "x"\n')
    result = millrace("up", "--contract", "mine.toml")
    assert result.exit_code == 2
    assert result.stderr.startswith("millrace: mine.toml:1:1: field: there is none; allowed: ")
    result = millrace("ingest", file_of(reading()), "--contract", "mine.toml")
    assert result.exit_code == 2
    assert result.stderr.startswith("millrace: mine.toml:1:1: field: there is none; allowed: ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "records.ndjson holds no record"),
        (b"\n \n\r\n\t\n", "records.ndjson holds no record"),
        (b"[]", "records.ndjson holds no record"),
        (b" [ ] \n", "records.ndjson holds no record"),
        (b"\xef\xbb\xbf", "records.ndjson holds no record"),
        (b"[", "records.ndjson is not a JSON array"),
        (b'[{"a":1},', "records.ndjson is not a JSON array"),
        (b'[\n{"a":1}\n{"b":2}\n]', "records.ndjson is not a JSON array"),
        (b'[{"a":1}] {"b":2}', "records.ndjson is not a JSON array"),
        (gzip.compress(b"{}", mtime=0), "records.ndjson is compressed: zcat records.ndjson"),
    ],
)
def test_a_file_that_holds_no_records(millrace, content, says):
    result = millrace("ingest", file_of(content), "--contract", "telemetry")
    assert result.exit_code == 2
    assert says in result.stderr
    assert not Path(".millrace").exists()


def test_a_file_that_cannot_be_read(millrace):
    missing = millrace("ingest", "none.ndjson", "--contract", "telemetry")
    assert (missing.exit_code, "No such file" in missing.stderr) == (2, True)
    folder = millrace("ingest", ".", "--contract", "telemetry")
    assert (folder.exit_code, "Is a directory" in folder.stderr) == (2, True)
    nothing = millrace("ingest", "-", "--contract", "telemetry", stdin=b"")
    assert (nothing.exit_code, "- holds no record" in nothing.stderr) == (2, True)


def test_aggregates_are_for_kinesis(millrace):
    file = file_of(reading())
    result = millrace("ingest", file, "--contract", "telemetry", "--via", "sqs", "--aggregate")
    assert result.exit_code == 2
    assert "SQS has no aggregates" in result.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            b'{"a":"\xff"}',
            r"record 2 is .* not UTF-8 \(invalid start byte at byte 6\).*--via kinesis",
        ),
        (
            b'{"a":"\x00"}',
            "record 2 is .*control characters, which SQS does not take.*--via kinesis",
        ),
        (b'{"a":"\x1f"}', "record 2 is .*control characters"),
        ('{"a":"\uffff"}'.encode(), "record 2 is .*control characters"),
        (
            b'{"a":"' + b"x" * 2**20 + b'"}',
            "record 2 is a message of 1048584 bytes; a queue takes 1048576",
        ),
    ],
)
def test_what_sqs_does_not_take_is_told_before_anything_is_sent(millrace, line, says):
    file = file_of(reading() + b"\n" + line + b"\n" + reading())
    result = millrace("ingest", file, "--contract", "telemetry", "--via", "sqs")
    assert result.exit_code == 2
    assert re.search(says, result.stderr)
    assert not Path(".millrace").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ingest"], "Missing argument"),
        (["ingest", "f"], "Missing option '--contract'"),
        (["ingest", "f", "--contract", "telemetry", "--via", "kafka"], "'kafka' is not one of"),
        (["ingest", "f", "--contract", "telemetry", "--timeout", "0"], "0"),
        (["ingest", "f", "--contract", "telemetry", "--timeout", "soon"], "'soon' is not a valid"),
        (["demo", "--records", "999"], "999 is not in the range"),
        (["demo", "--records", "many"], "'many' is not a valid integer"),
        (["up", "--port", "70000"], "70000 is not in the range"),
        (["up", "--table", "quick"], "'quick' is not one of 'emulator', 'fast'"),
        (["query"], "Missing argument"),
        (["hot"], "Missing argument"),
        (["mill"], "No such command 'mill'"),
        (["query", "--jsno", "SELECT 1"], "--jsno"),
    ],
)
def test_a_wrong_option(millrace, arguments, says):
    result = millrace(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not Path(".millrace").exists()


# ---- hot: when ----


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--last", "soon"], "--last 'soon': a number and s, m, h or d, such as 90m"),
        (["--last", "1w"], "a number and s, m, h or d"),
        (["--last", "-1h"], "a number and s, m, h or d"),
        (["--last", "1.5h"], "a number and s, m, h or d"),
        (["--last", "367d"], "over 366 days"),
        (["--last", "999999999d"], "over 366 days"),
        (["--last", "9" * 30 + "d"], "is too long"),
        (["--last", "1h", "--from", "2026-11-24"], "--last goes without --from and --to"),
        (["--last", "1h", "--to", "2026-11-24"], "--last goes without --from and --to"),
        (["--to", "2026-11-24"], "--to needs --from"),
        (["--from", "yesterday"], "--from: 'yesterday' is not an ISO-8601 time"),
        (["--from", "2026-11-24T12:00:00"], "has no offset: Z or +hh:mm"),
        (["--from", "2026-13-24"], "--from: '2026-13-24"),
        (["--from", "2026-11-24", "--to", "later"], "--to: 'later'"),
        (["--from", "2026-11-25", "--to", "2026-11-24"], "--from lies after --to"),
        (["--from", "9999-01-01"], "--from lies after now"),
        (["--from", "0001-01-01"], "over 366 days"),
    ],
)
def test_a_time_that_makes_no_sense(millrace, arguments, says):
    result = millrace("hot", "sensor-1", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    ("last", "start", "stop", "low", "high"),
    [
        (None, None, None, NOW - timedelta(hours=1), NOW),
        ("90m", None, None, NOW - timedelta(minutes=90), NOW),
        ("30s", None, None, NOW - timedelta(seconds=30), NOW),
        ("366d", None, None, NOW - timedelta(days=366), NOW),
        ("0s", None, None, NOW, NOW),
        (None, "2026-11-24", None, NOW - timedelta(hours=12), NOW),
        (None, "2026-11-23", "2026-11-24", NOW - timedelta(hours=36), NOW - timedelta(hours=12)),
        (None, "2026-11-24T12:30:00.5+01:00", None, NOW - timedelta(minutes=29, seconds=59.5), NOW),
        (None, "2026-11-24T12:00:00Z", "2026-11-24T12:00:00Z", NOW, NOW),
    ],
)
def test_the_span_asked_for(last, start, stop, low, high):
    given = (None if text is None else MOMENT.convert(text, None, None) for text in (start, stop))
    length = None if last is None else DURATION.convert(last, None, None)
    assert span(length, *given, NOW) == (low, high)


# ---- The state ----


COMMANDS = (
    ["catalog"],
    ["query", "SELECT 1"],
    ["hot", "sensor-1"],
    ["verify"],
    ["quarantine", "list"],
    ["quarantine", "show"],
    ["quarantine", "stats"],
    ["quarantine", "tail"],
    ["why", "sensor-1"],
    ["erase", "--device", "sensor-1", "--dry-run"],
    ["export", "--device", "a", "--from", "2026-11-24", "--to", "2026-11-25", "--out", "a.csv"],
    ["compact"],
    ["seal"],
    ["partitions"],
    ["demo"],
    ["up"],
    ["ingest", "records.ndjson", "--contract", "telemetry"],
)


@pytest.mark.parametrize("arguments", COMMANDS[:14])
def test_no_records_yet(millrace, arguments):
    result = millrace(*arguments, "--state", "nowhere")
    assert result.exit_code == 4
    assert re.search(r"nowhere holds no records yet; .*--state", result.stderr)
    assert not Path("nowhere").exists()


def test_no_such_contract_in_the_state(millrace):
    state = State(Path("state"))
    state.prepare()
    state.keep_contract("telemetry")
    (state / "s3" / "000000000000" / BUCKET).mkdir(parents=True)
    result = millrace("hot", "sensor-1", "--contract", "fleet", "--state", "state")
    assert result.exit_code == 2
    assert "--contract 'fleet': this state has telemetry" in result.stderr


@pytest.mark.parametrize("arguments", COMMANDS[14:])
def test_a_place_that_is_not_ours(millrace, arguments):
    file_of(reading())
    Path("file").write_text("mine")
    Path("folder").mkdir()
    Path("folder/thesis.txt").write_text("mine")
    for place, says in (
        ("file", "is not a directory"),
        ("folder", "holds files that are not Millrace's"),
        ("file/below", "cannot be written"),
    ):
        result = millrace(*arguments, "--state", place)
        assert result.exit_code == 4
        assert says in result.stderr
        assert result.stderr.count("\n") == 1
    assert Path("folder/thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("arguments", COMMANDS[14:])
def test_a_state_that_is_in_use(millrace, arguments):
    file_of(reading())
    with State(Path("state")).owned():
        result = millrace(*arguments, "--state", "state")
    assert result.exit_code == 4
    assert "state is in use by a process; stop it, or use another --state" in result.stderr


@pytest.mark.parametrize("arguments", COMMANDS[15:])
@pytest.mark.parametrize(("begun", "wanted"), [("fast", "emulator"), ("emulator", "fast")])
def test_a_state_goes_on_with_the_table_it_was_begun_with(millrace, arguments, begun, wanted):
    file_of(reading())
    state = State(Path("state"))
    state.prepare()
    assert [state.table(), state.table("fast"), state.table("emulator")] == [
        *("emulator", "fast", "emulator")
    ]
    (state / "s3" / "account" / BUCKET).mkdir(parents=True)
    if begun == "fast":
        state.tables.mkdir()
    assert state.table() == state.table(begun) == begun
    result = millrace(*arguments, "--table", wanted, "--state", "state")
    assert result.exit_code == 2
    assert f"was begun with --table {begun}" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", COMMANDS[14:])
@pytest.mark.parametrize(
    ("limit", "says"), [("MEMORY_MIN_MB", "MB of memory"), ("DISK_MIN_MB", "MB of disk left")]
)
def test_a_machine_that_is_too_small(millrace, monkeypatch, arguments, limit, says):
    file_of(reading())
    monkeypatch.setattr(preflight, limit, 2**40)
    result = millrace(*arguments)
    assert result.exit_code == 4
    assert says in result.stderr
    assert str(2**40) in result.stderr


def test_a_port_that_is_taken(millrace):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = millrace("up", "--port", port)
    assert result.exit_code == 4
    assert f"port {port} of 127.0.0.1 is taken" in result.stderr


def test_a_hint_names_the_state_unless_it_is_the_default(tmp_path):
    assert run.state_hint(State(Path(".millrace"))) == ""
    mine = tmp_path / "my state"
    assert run.state_hint(State(mine)) == f" --state '{mine}'"


# ---- What is read from a file ----


@pytest.mark.parametrize(
    ("content", "bodies"),
    [
        (b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\r\n\r\n  \n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}']),
        (b' {"a":1} \n', [b' {"a":1} ']),
        (b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}", [b"{}", b"\xef\xbb\xbf{}"]),
        (b"\xff\n{\n\x00", [b"\xff", b"{", b"\x00"]),
        (b'[{"a": 1},\n {"b": [2, 3]}, 4, null]\n', [b'{"a": 1}', b'{"b": [2, 3]}', b"4", b"null"]),
        (b"[[1], []]", [b"[1]", b"[]"]),
        (b'[1]\n{"a":1}\n', [b"[1]", b'{"a":1}']),  # lines, the first of which is malformed
        (b'{"a":1}\n[1]\n', [b'{"a":1}', b"[1]"]),
        (b'\xef\xbb\xbf [{"a":1}]', [b'{"a":1}']),
    ],
)
def test_lines_and_elements_are_kept_as_they_are(tmp_path, content, bodies):
    file = tmp_path / "file"
    file.write_bytes(content)
    assert list(read_bodies(str(file))) == bodies


def test_a_senml_pack_is_one_record(tmp_path):
    """Its elements inherit from one another."""
    file = tmp_path / "file"
    file.write_bytes(b'[{"bn":"a"},\n {"v":1}]\n')
    assert list(read_bodies(str(file), arrays=False)) == [b'[{"bn":"a"},\n {"v":1}]']
    file.write_bytes(b'[{"v":1}]\n[{"v":2}]\n')
    assert list(read_bodies(str(file), arrays=False)) == [b'[{"v":1}]', b'[{"v":2}]']


def test_a_deep_array_is_told(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"[" * 100_000)
    with pytest.raises(click.UsageError, match="is not a JSON array"):
        list(read_bodies(str(file)))


def test_a_device_has_one_partition_key():
    rules = load_contract("telemetry")
    bodies = [reading("a"), b"{", reading("b"), reading("a", seq=2), reading("x" * 300)]
    assert list(device_keys(bodies, rules)) == ["a", "unreadable/1", "b", "a", "x" * 256]


# ---- contract ----


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "holds no record; give NDJSON"),
        (b"\x00\xff" * 9, "is neither JSON nor gzip"),
        (b"[1]", "holds no JSON object"),
        (b'{"device": "a"}', "no field can be the event time: it must be a time in every record"),
    ],
)
def test_a_sample_that_gives_no_contract(millrace, data, says):
    result = millrace("contract", "new", file_of(data))
    assert result.exit_code == 2
    assert result.stderr.startswith("millrace: ")
    assert says in result.stderr


def test_a_mistake_has_its_line_wherever_a_contract_is_given(millrace):
    Path("mine.toml").write_text('name = "mine"\n[[field]]\nname = "x"\ntype = "int"\n')
    for command in (["ingest", file_of(reading())], ["up"]):
        result = millrace(*command, "--contract", "mine.toml")
        assert result.exit_code == 2
        assert result.stderr.startswith("millrace: mine.toml:4:1: field 'x': type: 'int'")


# ---- What is printed ----


def test_a_table_shows_values_whole_and_as_they_are(capsys):
    """Quarantined bodies hold anything: what looks like markup, and what commands a terminal."""
    bodies = ["[bold]x[/bold]", "[/nothing]", ":smile:", "\x1b[2J\n", "\N{SNOWMAN}", "x" * 300]
    shown.print_table(pa.table({"[red]": bodies, "n": [1, None, 3, 4, 5, 6]}))
    out = capsys.readouterr().out
    for text in ("[red]", *bodies[:3], "\\x1b[2J\\n", "\N{SNOWMAN}", "x" * 300):
        assert f" {text} " in out
    assert len(out.strip("\n").splitlines()) == 10
    assert "\x1b" not in out


def test_a_long_table_says_how_much_is_left_out(capsys):
    shown.print_table(pa.table({"n": list(range(1_234))}))
    assert "… and 1,034 more rows; add LIMIT, or use --json" in capsys.readouterr().out
    shown.print_table(pa.table({"n": []}))
    assert "n" in capsys.readouterr().out
    shown.print_table(pa.table({}))
    assert capsys.readouterr().out == "Done.\n"


# ---- What it says of itself ----


def names() -> list[str]:
    return sorted(commands.group.commands)


def test_the_commands():
    assert names() == [
        *("catalog", "compact", "contract", "demo", "erase", "export", "hot", "ingest"),
        *("partitions", "quarantine", "query", "replay", "reprocess", "resume", "seal", "sweep"),
        *("up", "verify", "why"),
    ]


@pytest.mark.parametrize("name", ["", *names()])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_has_examples_that_can_be_copied(millrace, name, option):
    result = millrace(*filter(None, [name, option]))
    assert result.exit_code == 0
    usage, _, examples = result.stdout.partition("Examples:\n")
    assert usage.startswith(f"Usage: millrace {name}".rstrip())
    assert "\\b" not in result.stdout
    lines = [line.strip() for line in examples.splitlines()]
    assert len(lines) >= 2
    for line in lines:
        assert f"millrace {name}" in line
        assert len(line) <= 100


@pytest.mark.parametrize("name", names())
def test_every_example_is_a_command_that_is_understood(name):
    """Each example's options are those of the command: the parser takes it, nothing is run."""
    command = commands.group.commands[name]
    lines = re.findall(rf"millrace {name}(.*)", command.epilog or "")
    assert lines
    for line in lines:
        arguments = [
            quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', line.strip())
        ]
        with command.make_context(name, arguments, resilient_parsing=False):
            pass


def test_the_version(millrace):
    result = millrace("--version")
    assert result.exit_code == 0
    assert re.search(r"millrace, version \d", result.stdout)


def test_every_command_option_and_exit_code_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("|")]
    for name in names():
        described = [row for row in rows if f"`millrace {name}" in row]
        assert described, f"millrace {name} is not in README.md"
        for option in commands.group.commands[name].params:
            if isinstance(option, click.Option) and option.name != "help":
                assert option.opts[0] in described[0], f"millrace {name} {option.opts[0]}"
    codes = {
        value
        for key, value in vars(run).items()
        if key
        in ("OK", "UNACCOUNTED", "WRONG_INPUT", "TIMED_OUT", "CANNOT_RUN", "PAUSED", "INTERRUPTED")
    }
    assert codes == {0, 1, 2, 3, 4, 5, 130}
    for code in codes:
        assert any(row.startswith(f"| {code} |") for row in rows), f"exit code {code}"
        assert re.search(rf"\b{code} \w", commands.EPILOG)


def test_the_readmes_example_of_the_fixture_runs(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (code,) = [block for block in blocks if "millrace_esm" in block]
    (tmp_path / "test_mine.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "infra.esm.plugin", "test_mine.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
