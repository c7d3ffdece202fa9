"""Whether this machine can run the embedded default at all, said before anything is started."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from infra.local.state import State

MEMORY_MIN_MB = 1_200  # emulator 200, eight workers of 90, this process 150, and some air
DISK_MIN_MB = 500  # a demo's objects, saved state and logs take about 150
MEMINFO = Path("/proc/meminfo")


class PreflightError(RuntimeError):
    """This machine lacks something; the message says what and how much."""


def check(state: State) -> None:
    """Raise `PreflightError` for too little memory or disk, or a platform without the runtime."""
    if sys.platform != "linux":
        raise PreflightError(
            "the embedded default needs Linux: Lambda's runtime client has wheels for no other "
            "system; use a Linux machine, a virtual machine or WSL"
        )
    state.prepare()
    enough_disk(shutil.disk_usage(state.root).free // 2**20, state.root)
    enough_memory(available_memory_mb(MEMINFO.read_text() if MEMINFO.exists() else ""))


def enough_disk(free_mb: int, where: Path) -> None:
    if free_mb < DISK_MIN_MB:
        raise PreflightError(
            f"{where} has {free_mb} MB of disk left and {DISK_MIN_MB} are needed; free some, or "
            "name a directory on another disk with --state"
        )


def enough_memory(available_mb: int | None) -> None:
    if available_mb is not None and available_mb < MEMORY_MIN_MB:
        raise PreflightError(
            f"{available_mb} MB of memory are available and {MEMORY_MIN_MB} are needed; "
            "close something and try again"
        )


def available_memory_mb(meminfo: str) -> int | None:
    """MemAvailable of /proc/meminfo's text, if it says."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return None
