"""Environments of engines that Millrace itself does not need, each made when first asked for.

They lie under `build/peers/`, made of pinned and hashed versions (`requirements/bench-*.txt`).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from loadtests.machine import ROOT

ENVIRONMENTS = ROOT / "build" / "peers"
INSTALL_SECONDS_MAX = 600
ABSENT = "not installed; a full run installs it"


@dataclass(frozen=True)
class Environment:
    """That of a lock file, `requirements/bench-<lock>.txt`."""

    lock: str

    @property
    def python(self) -> Path:
        return self._folder / "bin" / "python"

    @property
    def ready(self) -> bool:
        return self._stamp.is_file() and self._stamp.read_text() == self._digest

    def make(self) -> str:
        """Make it anew; why it cannot be made, or nothing."""
        shutil.rmtree(self._folder, ignore_errors=True)
        venv.create(self._folder, with_pip=True)
        command = [self.python, "-m", "pip", "install", "--quiet", "--require-hashes"]
        command += ["--only-binary", ":all:", "--disable-pip-version-check", "-r", self._locked]
        try:
            done = subprocess.run(  # noqa: S603  pip, with our own lock file
                command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS_MAX
            )
        except subprocess.TimeoutExpired:
            return f"not installed within {INSTALL_SECONDS_MAX} s"
        if done.returncode:
            return "cannot be installed here: " + done.stderr.strip().rpartition("\n")[2][:200]
        self._stamp.write_text(self._digest)
        return ""

    def lack(self, *, install: bool) -> str:
        """Why it cannot be used, after it was made if that is wanted; nothing where it can."""
        if self.ready:
            return ""
        return self.make() if install else ABSENT

    @property
    def _folder(self) -> Path:
        return ENVIRONMENTS / self.lock

    @property
    def _stamp(self) -> Path:
        return self._folder / "made-from"

    @property
    def _locked(self) -> Path:
        return ROOT / "requirements" / f"bench-{self.lock}.txt"

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self._locked.read_bytes()).hexdigest()
