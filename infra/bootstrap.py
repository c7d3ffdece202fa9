"""Make `.venv` ready for use: `python3 infra/bootstrap.py run` (the demo) or `dev` (the tests too).

Promised: afterwards `.venv` holds exactly the packages requirements/run.txt (or dev.txt) names, by
version and hash, and this tree, installed in place. A second run says nothing and starts no other
process: a stamp inside `.venv` tells what it was made from. A run that was stopped or failed leaves
no stamp once it has begun to change `.venv`, so the next run makes it again. What cannot work is
said in a line or two on stderr, before anything is removed or downloaded where that is possible.

Only the standard library, and only syntax and calls that Python 3.6 accepts up to the version
check: an interpreter that is too old has to get far enough to say so.

Exit codes: 0 ready, 1 a file could not be read or written, 2 wrong usage, 10 Python too old,
11 venv or ensurepip missing or failing, 12 folder not writable, 13 too little disk, 14 too little
memory, 15 package index out of reach, 16 a package's hash differs, 17 pip failed for some other
reason, 130 interrupted.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(os.path.abspath(__file__)).parent.parent

KINDS = ("run", "dev")
OLDEST_PYTHON = (3, 11)  # pyproject.toml: requires-python
NEWEST_PYTHON = (3, 14)  # every locked package has a wheel up to here

# Measured on Linux x86_64: .venv 360 MB (run) and 670 MB (dev), wheels 100 and 185 MB, which pip
# holds twice while it installs (its cache and its temporary folder); the rest is for what the demo
# writes and for the test and lint caches.
DISK_NEEDED_MB = {"run": 800, "dev": 1300}
DOWNLOAD_MB = {"run": 117, "dev": 254}
MEMORY_NEEDED_MB = 2000  # the emulator, the function workers and the query engine, side by side

PIP_LINES_SHOWN = 6  # enough for pip's reason and its hint, short enough to be read
PROGRESS_EVERY_PACKAGES = 10
STOP_GRACE_SECONDS = 5  # pip has had the same Ctrl-C: time to remove its temporary folder

INTERRUPTED = 130


class Problem(Exception):
    """Why `.venv` cannot be made ready: what is wrong, what to do, and the exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def main(arguments: "list[str]") -> int:
    """Do what the command line asks and return the exit code. No traceback for what is foreseen."""
    if len(arguments) != 1 or arguments[0] not in KINDS:
        say("usage: python3 infra/bootstrap.py run|dev", to_stderr=True)
        return 2
    try:
        prepare(arguments[0], ROOT)
    except Problem as problem:
        say(problem.message, to_stderr=True)
        return problem.code
    except KeyboardInterrupt:
        say("Interrupted. Run it again: it repairs what is half done.", to_stderr=True)
        return INTERRUPTED
    except OSError as error:
        full = error.errno == errno.ENOSPC
        trouble = disk_full_problem() if full else Problem(1, "Cannot make .venv: {}".format(error))
        say(trouble.message, to_stderr=True)
        return trouble.code
    return 0


def prepare(kind: str, root: Path) -> None:
    """Make `root/.venv` ready for `kind`, or raise `Problem`. Nothing to do is the fast path."""
    require(python_problem(sys.version_info[:2]))
    require(memory_problem(available_memory_mb(Path("/proc/meminfo"))))
    venv = root / ".venv"
    if ready_for(kind, read_stamp(venv), root):
        return
    require(module_problem([name for name in ("venv", "ensurepip") if not can_import(name)]))
    require(writable_problem(root, write_refusal(root)))
    say_if(newer_python_warning(sys.version_info[:2]))
    with sole_builder(root):
        stamp = read_stamp(venv)  # again: another run may just have finished the work
        if not ready_for(kind, stamp, root):
            build(kind, root, venv, stamp)


# ---- What can be wrong: facts in, Problem or None out ----


def python_problem(version: "tuple[int, ...]") -> "Problem | None":
    """Too old to run the project."""
    if version[:2] >= OLDEST_PYTHON:
        return None
    return Problem(
        10,
        "Millrace needs Python {} or newer; this is {}.\n"
        "Name a newer one: make demo PYTHON=python3.12".format(
            dotted(OLDEST_PYTHON), dotted(version)
        ),
    )


def newer_python_warning(version: "tuple[int, ...]") -> "str | None":
    """Newer than what was tested: it may well work, so this is not a `Problem`."""
    if version[:2] <= NEWEST_PYTHON:
        return None
    return "Warning: Python {} is newer than {}, the newest tested.".format(
        dotted(version), dotted(NEWEST_PYTHON)
    )


def module_problem(missing: "list[str]") -> "Problem | None":
    """Some distributions ship Python without the means to make a virtual environment."""
    if not missing:
        return None
    return Problem(
        11,
        "This Python cannot make a virtual environment: it lacks {}.\n"
        "On Debian and Ubuntu: apt install python3-venv".format(" and ".join(missing)),
    )


def writable_problem(root: Path, refusal: "str | None") -> "Problem | None":
    """`.venv` lives in the tree, so the tree has to take it."""
    if refusal is None:
        return None
    return Problem(
        12,
        "Cannot write in {}: {}.\n"
        "Copy the project to a folder you may write to, or change this one's permissions.".format(
            root, refusal
        ),
    )


def disk_problem(kind: str, free_mb: int) -> "Problem | None":
    """Found before a download of minutes, not after it."""
    needed_mb = DISK_NEEDED_MB[kind]
    if free_mb >= needed_mb:
        return None
    return Problem(
        13,
        "Too little disk: {} MB free, about {} MB needed.\n"
        "Free some space and run it again.".format(free_mb, needed_mb),
    )


def disk_full_problem() -> Problem:
    """The disk filled up on the way: here, or where pip keeps its cache and temporary files."""
    return Problem(
        13,
        "The disk is full.\n"
        "Free some space here, in TMPDIR and in pip's cache folder, and run it again.",
    )


def memory_problem(available_mb: "int | None") -> "Problem | None":
    """None is a system that does not tell; it gets the benefit of the doubt."""
    if available_mb is None or available_mb >= MEMORY_NEEDED_MB:
        return None
    return Problem(
        14,
        "Too little memory: {} MB available, about {} MB needed.\n"
        "Close something large and run it again.".format(available_mb, MEMORY_NEEDED_MB),
    )


def pip_problem(output: str, lock: str) -> Problem:
    """Why pip failed, from what it printed.

    The order matters: a retry that succeeded leaves its warning behind, so a hash that differs and
    a full disk are looked for first, and a warning alone does not make the index unreachable.
    """
    last_lines = "\n".join("  pip: " + line for line in last_words(output))
    if "DO NOT MATCH THE HASHES" in output:
        return Problem(
            16,
            "A downloaded package is not the one {} names (its hash differs); not installed.\n"
            "Check the mirror or proxy in between, or update the tree.\n{}".format(
                lock, last_lines
            ),
        )
    if "No space left on device" in output:
        return disk_full_problem()
    if index_is_out_of_reach(output):
        return Problem(
            15,
            "The package index cannot be reached. Check the network; behind a proxy set\n"
            "HTTPS_PROXY, for a mirror PIP_INDEX_URL, and run it again.\n{}".format(last_lines),
        )
    return Problem(17, "pip could not install from {}:\n{}".format(lock, last_lines))


def index_is_out_of_reach(output: str) -> bool:
    """Whether pip gave up on a connection, or found no version of a package after one broke.

    No version of the very first package is the same: pip is silent about its last try.
    """
    broken = re.compile(
        r"connection broken by|Max retries exceeded|NewConnectionError|NameResolutionError"
        r"|ConnectTimeoutError|ReadTimeoutError|ProxyError|SSLError|RemoteDisconnected"
    )
    lines = output.splitlines()
    if any(broken.search(line) and not line.startswith("WARNING") for line in lines):
        return True
    at_the_first = sum(line.startswith("Collecting ") for line in lines) <= 1
    return "(from versions: none)" in output and (at_the_first or bool(broken.search(output)))


def last_words(output: str) -> "list[str]":
    """The end of pip's output without its remarks about places it skips."""
    lines = [line.rstrip() for line in output.splitlines()]
    said = [line for line in lines if line and not line.endswith("nor a directory.")]
    return said[-PIP_LINES_SHOWN:]


# ---- The facts ----


def can_import(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def write_refusal(root: Path) -> "str | None":
    """Why the system refuses a new folder in `root`; the mode bits alone do not bind root users."""
    if not os.access(str(root), os.W_OK | os.X_OK):
        return "permission denied or read-only"
    probe = root / ".venv-probe-{}".format(os.getpid())
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return None  # the disk check says it better
        return (error.strerror or str(error)).lower()
    return None


def free_disk_mb(folder: Path) -> int:
    return shutil.disk_usage(str(folder)).free // 10**6


def available_memory_mb(meminfo: Path) -> "int | None":
    """MemAvailable, which counts caches the kernel would give up; None where nobody tells."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 // 10**6 if found else None


# ---- The stamp ----


def ready_for(kind: str, stamp: "dict[str, str]", root: Path) -> bool:
    """Whether a stamp covers `kind`; one for `dev` covers `run`, whose packages are among its."""
    if not stamp:
        return False
    wanted = wanted_stamp(root)
    parts = ["tree", "python", "project", "run"] + (["dev"] if kind == "dev" else [])
    return all(stamp.get(part) == wanted[part] for part in parts)


def wanted_stamp(root: Path) -> "dict[str, str]":
    """What `.venv` depends on: where it stands, whose wheels it takes, and what is asked of it."""
    return {
        "tree": str(root),  # scripts in .venv/bin begin with this path
        "python": "{}{}".format(sys.implementation.cache_tag, getattr(sys, "abiflags", "")),
        "project": digest(root / "pyproject.toml"),
        "run": digest(root / "requirements" / "run.txt"),
        "dev": digest(root / "requirements" / "dev.txt"),
    }


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def read_stamp(venv: Path) -> "dict[str, str]":
    """The stamp, or nothing if there is none to trust: also when the interpreter below is gone."""
    if not (venv / "bin" / "python").exists():
        return {}
    try:
        stamp = json.loads(stamp_file(venv).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def drop_stamp(venv: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        stamp_file(venv).unlink()


def write_stamp(venv: Path, stamp: "dict[str, str]") -> None:
    """In one step: a stamp is there whole or not at all."""
    draft = venv / "millrace-stamp.draft"
    draft.write_text(json.dumps(stamp, indent=1))
    draft.replace(stamp_file(venv))


def stamp_file(venv: Path) -> Path:
    return venv / "millrace-stamp.json"


# ---- The work ----


def build(kind: str, root: Path, venv: Path, stamp: "dict[str, str]") -> None:
    """Bring `.venv` from what `stamp` says to what is wanted.

    What stands is kept when its packages are those locked now: `dev` after `run` adds to it, and an
    edited pyproject.toml costs the last step alone. Otherwise it is made again from nothing, for an
    upgrade in place leaves behind packages that no lock names.
    """
    started = time.monotonic()
    wanted = wanted_stamp(root)
    lasting = ("tree", "python", "run", "dev")
    if any(stamp.get(part, wanted[part]) != wanted[part] for part in lasting):
        stamp = {}
    if not stamp:
        remove(venv)
    require(disk_problem(kind, free_disk_mb(root)))
    if not stamp:
        say("Making .venv with Python {} ...".format(dotted(sys.version_info[:2])))
        make_venv(venv)
    if stamp.get(kind) != wanted[kind]:
        install_locked(kind, root, venv)
    say("Installing millrace in place ...")
    install_tree(root, venv)
    kept = ("run", "dev") if kind == "dev" or "dev" in stamp else ("run",)
    write_stamp(venv, {part: wanted[part] for part in ("tree", "python", "project", *kept)})
    say("Ready: .venv ({:.0f} s).".format(time.monotonic() - started))


def remove(venv: Path) -> None:
    """The stamp first: should this be stopped, nobody takes the rest for whole."""
    drop_stamp(venv)
    if venv.is_symlink() or venv.is_file():
        venv.unlink()
    elif venv.exists():
        say("Removing the old .venv ...")
        shutil.rmtree(str(venv))


def make_venv(venv: Path) -> None:
    """With the interpreter below, should this one itself live in the `.venv` just removed."""
    interpreter = getattr(sys, "_base_executable", None) or sys.executable
    code, output = watch([interpreter, "-I", "-m", "venv", str(venv)])
    if code != 0:
        raise Problem(
            11,
            "`{} -m venv` failed; on Debian and Ubuntu: apt install python3-venv\n{}".format(
                interpreter, "\n".join("  venv: " + line for line in last_words(output))
            ),
        )


def install_locked(kind: str, root: Path, venv: Path) -> None:
    """The packages of the lock, each one's hash compared with what was downloaded."""
    lock = root / "requirements" / "{}.txt".format(kind)
    total = len(re.findall(r"^[\w.-]+==", lock.read_text(), re.MULTILINE))
    say(
        "Installing {} packages (some {} MB to download the first time) ...".format(
            total, DOWNLOAD_MB[kind]
        )
    )
    pip(venv, ["--require-hashes", "-r", str(lock)], "requirements/" + lock.name)


def install_tree(root: Path, venv: Path) -> None:
    """In place, with the locked build backend: no isolation, since that would download another.

    `--ignore-requires-python` because a newer Python is warned about, not refused.
    """
    arguments = ["--no-deps", "--no-build-isolation", "--ignore-requires-python", "-e", str(root)]
    pip(venv, arguments, "pyproject.toml")


def pip(venv: Path, arguments: "list[str]", lock: str) -> None:
    """`pip install` inside `.venv`; pip's own words are shown only if it fails.

    Isolated from PYTHONPATH, whose packages pip would count as installed, and from a configured
    `user = true`, which it refuses in a virtual environment. Index, proxy and certificate settings
    still apply.
    """
    command = [str(venv / "bin" / "python"), "-I", "-m", "pip", "install", "--no-user"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    collected = []  # type: list[str]

    def follow(line: str) -> None:
        if line.startswith("Installing collected packages"):
            drop_stamp(venv)  # from here on .venv changes; a failed download leaves it as it was
        if line.startswith("Collecting "):
            collected.append(line)
            if len(collected) % PROGRESS_EVERY_PACKAGES == 0:
                say("  {} collected".format(len(collected)))

    code, output = watch(command + arguments, follow)
    if code != 0:
        raise pip_problem(output, lock)


def watch(
    command: "list[str]", follow: "Callable[[str], object] | None" = None
) -> "tuple[int, str]":
    """Run a command; return its exit code and all it printed, each line given to `follow` too."""
    said = []  # type: list[str]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                said.append(line)
                if follow is not None:
                    follow(line)
            code = process.wait()
        except BaseException:
            stop(process)
            raise
    return code, "".join(said)


def stop(process: "subprocess.Popen[str]") -> None:
    """Let it end by itself, then see to it that it does not outlive this one."""
    try:
        process.wait(STOP_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def sole_builder(root: Path) -> "Iterator[None]":
    """Hold the folder's lock, so that two makes at once do not build the same `.venv`."""
    folder = os.open(str(root), os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another run to finish .venv ...")
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: as before there were any
        yield
    finally:
        os.close(folder)


def require(problem: "Problem | None") -> None:
    if problem is not None:
        raise problem


def dotted(version: "tuple[int, ...]") -> str:
    return ".".join(str(part) for part in version)


def say_if(message: "str | None") -> None:
    if message is not None:
        say(message, to_stderr=True)


def say(message: str, to_stderr: bool = False) -> None:
    print(message, file=sys.stderr if to_stderr else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
