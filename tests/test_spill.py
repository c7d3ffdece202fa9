"""The spill: what was appended is there after any death, in order, within its bounds."""

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.producer import Full, Message, Spill, SpillError
from ingest.producer.spill import SPILL_BYTES_MIN, Log
from tests.support import SOME

RUN, NEXT = b"r" * 16, b"n" * 16


def message(number, data=b"data", key="key"):
    return Message(key, data, number, RUN)


def opened(directory, run=RUN, **more):
    return Log(Spill(directory, **{"fsync": "never"} | more), run)


def died(log):
    """What `kill -9` leaves: open files are closed by the system, and nothing else happens."""
    for file in (log._file, log._cursor.file, log._lock):
        if file >= 0:
            os.close(file)


def all_of(log):
    found = []
    while not log.caught_up:
        found += log.read()
    return found


def files(directory, pattern):
    return sorted(path.name for path in directory.glob(pattern))


@pytest.mark.parametrize("fsync", ["never", "interval", "always"])
def test_what_was_appended_is_there_after_a_death(tmp_path, fsync):
    log = opened(tmp_path, fsync=fsync)
    wanted = [message(number, b"%d" % number, f"k{number % 3}") for number in range(500)]
    for one in wanted:
        log.append(one, read=False)
    died(log)
    again = opened(tmp_path, NEXT)
    assert again.resumed == 500
    assert again.next_number == 500
    assert all_of(again) == wanted  # and each is of the run that accepted it


def test_what_is_acknowledged_is_not_there_again(tmp_path):
    log = opened(tmp_path)
    for number in range(10):
        log.append(message(number), read=True)
    log.acknowledge(7)
    died(log)
    again = opened(tmp_path, NEXT)
    assert again.resumed == 3
    assert [m.number for m in all_of(again)] == [7, 8, 9]


def test_numbers_go_on_where_nothing_is_left(tmp_path):
    log = opened(tmp_path)
    for number in range(10):
        log.append(message(number), read=True)
    log.acknowledge(10)
    log.close()
    assert files(tmp_path, "*.segment") == []
    again = opened(tmp_path, NEXT)
    assert (again.next_number, again.resumed, again.bytes) == (10, 0, 0)


def test_what_is_appended_comes_behind_what_was_found(tmp_path):
    log = opened(tmp_path)
    log.append(message(0, b"old"), read=False)
    died(log)
    again = opened(tmp_path, NEXT)
    again.append(Message("key", b"new", 1, NEXT), read=False)
    assert [(m.data, m.run) for m in all_of(again)] == [(b"old", RUN), (b"new", NEXT)]


@SOME
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20), st.data())
def test_a_torn_end_is_cut_off_and_nothing_else(tmp_path_factory, bodies, data):
    """Wherever the last write was cut, all that were whole before it are there."""
    directory = tmp_path_factory.mktemp("spill")
    log = opened(directory)
    for number, body in enumerate(bodies):
        log.append(message(number, body), read=False)
        if number == len(bodies) - 2:
            before = log._segments[-1].size
    last = log._segments[-1]
    before = before if len(bodies) > 1 else 32
    died(log)
    os.truncate(last.path, data.draw(st.integers(before, last.size - 1)))
    again = opened(directory, NEXT)
    assert [m.data for m in all_of(again)] == bodies[:-1]
    again.append(Message("key", b"after", again.next_number, NEXT), read=False)
    died(again)
    assert [m.data for m in all_of(opened(directory))] == [*bodies[:-1], b"after"]
    shutil.rmtree(directory)


@pytest.mark.parametrize("content", [b"", b"MRSPILL1 and then nothing", bytes(64)])
def test_a_segment_without_a_whole_header(tmp_path, content):
    (tmp_path / f"{0:020d}.segment").write_bytes(content)
    log = opened(tmp_path)
    assert (log.resumed, log.next_number) == (0, 0)
    assert log.damaged_bytes == len(content)


def test_damage_is_set_aside_and_told(tmp_path):
    log = opened(tmp_path)
    for number in range(3):
        log.append(message(number), read=False)
    died(log)
    (path,) = tmp_path.glob("*.segment")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    again = opened(tmp_path, NEXT)
    assert [m.number for m in all_of(again)] == [0, 1]
    assert again.damaged_bytes == 17 == (len(content) - 32) // 3
    assert path.with_suffix(".damaged").read_bytes() == content[-17:]


def test_damage_that_comes_later_is_counted(tmp_path):
    log = opened(tmp_path)
    for number in range(3):
        log.append(message(number), read=False)
    (path,) = tmp_path.glob("*.segment")
    content = bytearray(path.read_bytes())
    content[32 + 17 + 10] ^= 1
    path.write_bytes(content)
    assert [m.number for m in all_of(log)] == [0]
    assert log.lost == 2
    assert log.damaged_bytes == 34


def test_a_spill_is_bounded_and_gives_room_back(tmp_path):
    log = opened(tmp_path, bytes_max=SPILL_BYTES_MIN)
    number = filled(log)
    full = r"holds \d+ bytes of at most 1048576: wait .* \(bytes_max\)"
    with pytest.raises(Full, match=full):
        log.append(message(number, bytes(1_000)), read=True)
    held = sum(path.stat().st_size for path in tmp_path.glob("*.segment"))
    assert SPILL_BYTES_MIN - 1_100 < held == log.bytes <= SPILL_BYTES_MIN
    assert len(files(tmp_path, "*.segment")) > 7
    log.acknowledge(number // 2)
    for more in range(number, number + number // 3):
        log.append(message(more, bytes(1_000)), read=True)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.segment")) == log.bytes


def filled(log):
    """Fill it up; the number of the message that was too many."""
    for number in range(2_000):
        try:
            log.append(message(number, bytes(1_000)), read=True)
        except Full:
            return number
    return None


def test_a_disk_that_is_full_takes_nothing_of_a_message(tmp_path, monkeypatch):
    log = opened(tmp_path)
    log.append(message(0), read=True)
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, content: write(file, content[:5]))
        with pytest.raises(Full, match=r"disk of the spill .* is full"):
            log.append(message(1), read=True)
        patched.setattr(os, "write", failing)
        with pytest.raises(Full, match=r"cannot be written: .*No space left"):
            log.append(message(1), read=True)
    log.append(message(1, b"after"), read=True)
    died(log)
    again = opened(tmp_path, NEXT)
    assert [m.data for m in all_of(again)] == [b"data", b"after"]
    assert again.damaged_bytes == 0


def failing(_file, _content):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_first_segment_that_cannot_be_written(tmp_path, monkeypatch):
    log = opened(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", failing)
        with pytest.raises(Full):
            log.append(message(0), read=True)
    assert files(tmp_path, "*.segment") == []
    log.append(message(0), read=True)
    assert log.bytes == 32 + 17


def test_what_is_refused_is_kept_for_people(tmp_path):
    log = opened(tmp_path)
    log.set_aside(message(5, b"\xff\x00"), "InvalidMessageContents: no")
    (line,) = (tmp_path / "refused.ndjson").read_text().splitlines()
    assert json.loads(line) == {
        "key": "key",
        "number": 5,
        "reason": "InvalidMessageContents: no",
        "data_base64": "/wA=",
    }
    log.close()
    assert opened(tmp_path).bytes == len(line) + 1


def test_a_directory_is_for_one_producer(tmp_path):
    log = opened(tmp_path)
    with pytest.raises(SpillError, match="in use: give each producer a directory of its own"):
        opened(tmp_path)
    log.close()
    opened(tmp_path).close()


def test_a_directory_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpillError, match="file"):
        opened(tmp_path / "file")


def test_a_spill_that_is_too_small(tmp_path):
    with pytest.raises(ValueError, match="at least 1048576"):
        Spill(tmp_path, bytes_max=1_000)


@pytest.mark.parametrize("cursor", [b"", b"short", bytes(8) + b"\x01\0\0\0"])
def test_a_cursor_that_is_not_whole_only_repeats(tmp_path, cursor):
    log = opened(tmp_path)
    for number in range(3):
        log.append(message(number), read=True)
    log.acknowledge(2)
    died(log)
    (tmp_path / "cursor").write_bytes(cursor)
    assert [m.number for m in all_of(opened(tmp_path, NEXT))] == [0, 1, 2]


def test_what_a_gateway_has_to_import():
    """No pyarrow, no boto3, no protobuf, and nothing of the Lambda side."""
    program = "import sys, ingest.producer; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"pyarrow", "boto3", "google", "msgspec", "duckdb", "aws_lambda_powertools"}
    ours = {name for name in loaded if name.split(".")[0] in {"transform", "sinks", "ingest"}}
    assert {name for name in ours if not name.startswith("ingest.producer")} == {
        "transform",
        "transform.kpl",
        "sinks",
        "sinks.errors",
        "ingest",
    }
