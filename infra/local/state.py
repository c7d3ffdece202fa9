"""The state directory: who owns it, where its emulator listens, which contracts it has seen.

lock             held by the process that runs the pipeline
running.json     that process, the emulator's address and the pipeline, while it runs
emulator.pid     the emulator, while it runs
contracts/       the contracts used here, as they were last used
paused/          a file for each mapping that is disabled
checkpoints/     how far each shard has been read
catalog.db       where the lake's tables of Iceberg are
emulator/ s3/    the emulator's saved state
table/           the items of the hot tables, where the fast table keeps them
logs/            one file per function, the emulator's and the table's
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.local.emulator import is_healthy, serves, stop_stale
from infra.topology import BUCKET
from transform.contract import Contract
from transform.contract_file import load_contract

MARK = ".millrace-state"
DEFAULT = Path(".millrace")

EMULATOR, FAST = "emulator", "fast"
TABLES = (EMULATOR, FAST)
"""Who serves the hot tables: the emulator, or a table of our own."""


class StateError(RuntimeError):
    """The state directory cannot be used as asked; the message says why and what to do."""


class WrongTable(StateError):
    """The state was begun with the other kind of table."""


@dataclass(frozen=True)
class Running:
    """The process that runs a pipeline on this state, and whether its queue is a FIFO queue.

    `table_url` is where its tables are; nothing where that is the emulator.
    """

    pid: int
    emulator_pid: int
    url: str
    pipeline: str
    fifo: bool = False
    table_url: str = ""


class State:
    """One state directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def prepare(self) -> None:
        """Make the directory and prove that it can be written. Raises `StateError`."""
        try:
            if self.root.exists() and not self.root.is_dir():
                raise StateError(f"{self.root} is not a directory; name another with --state")
            self.root.mkdir(parents=True, exist_ok=True)
            if any(self.root.iterdir()) and not (self / MARK).exists():
                raise StateError(
                    f"{self.root} holds files that are not Millrace's; name an empty or new "
                    "directory with --state"
                )
            (self / MARK).touch()
            (self / "lock").touch()
        except OSError as error:
            raise StateError(
                f"{self.root} cannot be written ({error.strerror}); name another directory with "
                "--state"
            ) from None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Be the one process that runs this state. Raises `StateError` naming who else does."""
        self.prepare()
        with (self / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                running = self.running()
                who = f"process {running.pid} ({running.pipeline})" if running else "a process"
                raise StateError(
                    f"{self.root} is in use by {who}; stop it, or use another --state"
                ) from None
            stop_stale(self.root)
            try:
                yield
            finally:
                with suppress(FileNotFoundError):
                    (self / "running.json").unlink()

    def announce(self, running: Running) -> None:
        """Say where the pipeline listens, for other commands on this state."""
        fresh = self / "running.json.new"
        fresh.write_text(json.dumps(asdict(running)))
        fresh.replace(self / "running.json")

    def running(self) -> Running | None:
        """The pipeline that runs on this state and answers, if there is one.

        What a killed process left behind is none: its port may be another pipeline's by now.
        """
        found = self._read_running()
        if found is None or not Path(f"/proc/{found.pid}").exists():
            return None
        there = serves(found.emulator_pid, self.root) and is_healthy(found.url)
        return found if there else None

    def clear(self) -> None:
        """Remove everything but the lock that is held. Only in a directory that is ours."""
        if not (self / MARK).exists():
            raise StateError(f"{self.root} is not a state directory of Millrace")
        for path in self.root.iterdir():
            if path.name in ("lock", MARK):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def used(self) -> bool:
        """Whether a pipeline ever stood here: its bucket is the first thing it makes."""
        return any((self / "s3").glob(f"*/{BUCKET}"))

    @property
    def tables(self) -> Path:
        """Where the fast table keeps its items."""
        return self / "table"

    def table(self, wanted: str | None = None) -> str:
        """The kind of table here: what the state was begun with; of a new one what is wanted.

        Raises `WrongTable` where something else is wanted: items do not move.
        """
        begun = FAST if self.tables.is_dir() else EMULATOR
        if not self.used():
            return wanted or EMULATOR
        if wanted not in {None, begun}:
            raise WrongTable(
                f"{self.root} was begun with --table {begun}, and its items are there; go on with "
                "that, or use another --state"
            )
        return begun

    def keep_contract(self, name_or_path: str) -> tuple[Contract, Path]:
        """Load a contract and keep its file here: functions and later queries read that copy."""
        contract = load_contract(name_or_path)
        kept = self / "contracts" / f"{contract.name}.toml"
        kept.parent.mkdir(exist_ok=True)
        for lookup in contract.lookups:  # before the file that needs them
            (kept.parent / lookup.digest).write_bytes(lookup.data or b"")
        fresh = kept.with_suffix(".new")
        fresh.write_bytes(contract.source)
        fresh.replace(kept)
        return contract, kept

    def contracts(self) -> list[Contract]:
        """The contracts used on this state, by name."""
        return [load_contract(str(path)) for path in sorted((self / "contracts").glob("*.toml"))]

    def _read_running(self) -> Running | None:
        try:
            return Running(**json.loads((self / "running.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
