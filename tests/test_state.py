"""The state directory: one owner, nobody else's files touched, a clear word for each no."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import preflight
from infra.local.state import DEFAULT, Running, State, StateError
from infra.topology import BUCKET
from transform.contract_file import ContractError

ROOT = Path(__file__).parent.parent
OWNER = """
import sys
from pathlib import Path
from infra.local.state import Running, State
state = State(Path(sys.argv[1]))
with state.owned():
    print("owned", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "state")


def contents(state: State) -> set[str]:
    return {path.name for path in state.root.iterdir()}


# ---- One owner ----


def test_a_state_is_owned_once(state):
    with (
        state.owned(),
        pytest.raises(StateError, match=r"state is in use by a process; .*--state"),
        State(state.root).owned(),
    ):
        pass
    with state.owned():
        pass


def test_it_is_owned_once_across_processes_and_free_again_when_the_owner_is_killed(state):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(state.root)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"owned\n"
        with pytest.raises(StateError, match="in use"), state.owned():
            pass
        owner.kill()
        owner.wait(10)
        with state.owned():
            pass


def test_ownership_ends_with_an_error_too(state):
    with pytest.raises(ZeroDivisionError), state.owned():
        raise ZeroDivisionError
    with state.owned():
        pass


def test_what_was_announced_is_forgotten_when_ownership_ends(state):
    with state.owned():
        state.announce(Running(os.getpid(), os.getpid(), "http://127.0.0.1:1", "fleet"))
        assert "running.json" in contents(state)
    assert contents(state) == {".millrace-state", "lock"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"pid": 1}',
        json.dumps({"pid": 0, "emulator_pid": 0, "url": "http://127.0.0.1:1", "pipeline": "x"}),
    ],
)
def test_no_pipeline_runs_where_nobody_says_so(state, text):
    assert state.running() is None
    with state.owned():
        (state / "running.json").write_text(text)
        assert state.running() is None


def test_a_process_that_is_no_emulator_of_this_state_is_none(state):
    """After a kill -9 the number may belong to anybody, and the port to another pipeline."""
    with state.owned():
        state.announce(Running(os.getpid(), os.getpid(), "http://127.0.0.1:1", "fleet"))
        assert state.running() is None


# ---- Places ----


def test_the_default_is_here():
    assert State(DEFAULT).root == Path.cwd() / ".millrace"


def test_folders_on_the_way_are_made(tmp_path):
    deep = State(tmp_path / "a" / "b" / "c d \N{SNOWMAN}")
    deep.prepare()
    deep.prepare()
    assert contents(deep) == {".millrace-state", "lock"}


def test_an_empty_folder_is_taken(tmp_path):
    State(tmp_path).prepare()
    assert (tmp_path / ".millrace-state").exists()


def test_a_folder_with_somebody_elses_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StateError, match=r"holds files that are not Millrace's; .*--state"):
        State(tmp_path).prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(StateError, match=r"file is not a directory; name another with --state"):
        State(file).prepare()
    assert file.read_text() == "mine"


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"cannot be written \(Not a directory\).*--state"):
        State(tmp_path / "file" / "state").prepare()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_place_that_cannot_be_written_is_refused():
    with pytest.raises(StateError, match=r"cannot be written \(.+\); name another"):
        State(Path("/proc/self/state")).prepare()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
@pytest.mark.parametrize("mode", [0o500, 0o300, 0o000])
def test_a_read_only_folder_is_refused(tmp_path, mode):
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    try:
        with pytest.raises(StateError, match=r"cannot be written \(Permission denied\)"):
            State(folder).prepare()
    finally:
        folder.chmod(0o700)


# ---- Clearing ----


def test_clear_leaves_an_empty_state_that_is_still_owned(state):
    with state.owned():
        (state / "s3" / "deep").mkdir(parents=True)
        (state / "s3" / "deep" / "object").write_text("x")
        (state / "running.json").write_text("{}")
        state.clear()
        assert contents(state) == {".millrace-state", "lock"}
        with pytest.raises(StateError, match="in use"), State(state.root).owned():
            pass


def test_clear_does_not_follow_a_link_out_of_the_state(state, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("mine")
    with state.owned():
        (state / "logs").symlink_to(elsewhere)
        state.clear()
    assert (elsewhere / "thesis.txt").read_text() == "mine"
    assert contents(state) == {".millrace-state", "lock"}


def test_only_our_own_folder_is_cleared(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StateError, match="not a state directory"):
        State(tmp_path).clear()
    assert (tmp_path / "thesis.txt").exists()


# ---- What was here before ----


def test_a_state_is_used_once_a_pipeline_stood_there(state):
    assert not state.used()
    state.prepare()
    (state / "logs").mkdir()
    (state / "s3").mkdir()
    assert not state.used()
    (state / "s3" / "000000000000" / BUCKET).mkdir(parents=True)
    assert state.used()


def test_contracts_are_kept_as_they_were_last_used(state, tmp_path):
    state.prepare()
    assert state.contracts() == []
    shipped, kept = state.keep_contract("telemetry")
    assert kept.read_bytes() == shipped.source
    assert [contract.name for contract in state.contracts()] == ["telemetry"]
    edited = tmp_path / "mine.toml"
    edited.write_bytes(shipped.source.replace(b"version = 1", b"version = 2"))
    state.keep_contract(str(edited))
    state.keep_contract("environment-sensors")
    assert [(c.name, c.version) for c in state.contracts()] == [
        ("environment-sensors", 1),
        ("telemetry", 2),
    ]


def test_a_broken_contract_is_not_kept(state, tmp_path):
    state.prepare()
    state.keep_contract("telemetry")
    broken = tmp_path / "broken.toml"
    broken.write_text('name = "telemetry"')
    with pytest.raises(ContractError):
        state.keep_contract(str(broken))
    assert [contract.version for contract in state.contracts()] == [1]


# ---- Before anything is started ----


def test_too_little_memory_is_told_with_numbers():
    with pytest.raises(preflight.PreflightError, match=r"800 MB of memory .* 1200 are needed"):
        preflight.enough_memory(800)
    preflight.enough_memory(preflight.MEMORY_MIN_MB)
    preflight.enough_memory(None)  # a system that does not say is given the benefit of the doubt


def test_too_little_disk_is_told_with_numbers_and_place(tmp_path):
    with pytest.raises(preflight.PreflightError, match=r"12 MB of disk left and 500 .*--state"):
        preflight.enough_disk(12, tmp_path)
    preflight.enough_disk(preflight.DISK_MIN_MB, tmp_path)


def test_available_memory_is_read_from_meminfo():
    meminfo = "MemTotal: 8000000 kB\nMemFree: 100 kB\nMemAvailable:    2048000 kB\nBuffers: 1 kB\n"
    assert preflight.available_memory_mb(meminfo) == 2_000
    assert preflight.available_memory_mb("MemTotal: 8000000 kB\n") is None
    assert preflight.available_memory_mb("") is None


def test_this_machine_runs_these_tests(state):
    preflight.check(state)
    assert (state / ".millrace-state").exists()
