"""`infra/bootstrap.py`: what it makes, how it recovers, and each thing it says when it cannot.

The end-to-end tests run the script as the Makefile does, on a small tree of its own: two packages
of a few bytes instead of the locked ones, from a folder instead of an index, so that they need no
network. Making the virtual environment is real, and so is pip.
"""

import ast
import base64
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from infra import bootstrap

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "infra" / "bootstrap.py"

FAST_PATH_SECONDS = 0.1  # promised: nobody should notice it in front of `make demo`
FAST_PATH_TRIES = 10  # the best of these counts; the machine may be busy with other tests

UNREACHABLE_PIP = """\
WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by \
'NewConnectionError('<HTTPSConnection>: Failed to establish a new connection: [Errno 111]')'
ERROR: Could not find a version that satisfies the requirement boto3==1.43.106 (from versions: none)
ERROR: No matching distribution found for boto3==1.43.106
"""
TIMED_OUT_PIP = """\
Collecting boto3==1.43.106
ERROR: Exception:
pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool: Read timed out.
"""
MISMATCH_PIP = """\
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated ...
    boto3==1.43.106:
        Expected sha256 00
             Got        11
"""
FULL_PIP = (
    "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
)
UNBUILT_PIP = """\
WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by 'ProxyError(...)'
Collecting boto3==1.43.106
ERROR: Failed building wheel for boto3
"""
NO_WHEEL_PIP = """\
Collecting boto3==1.43.106
Collecting duckdb==2.0.0
ERROR: Could not find a version that satisfies the requirement duckdb==2.0.0 (from versions: none)
ERROR: No matching distribution found for duckdb==2.0.0
"""


# ---- The work ----


def test_run_is_made_once_and_dev_adds_to_it(tree):
    first = tree.bootstrap("run")
    assert (first.returncode, first.stderr) == (0, "")
    assert "Making .venv" in first.stdout
    assert tree.has("tiny_run")
    assert not tree.has("tiny_dev")
    assert tree.python("-c", "import tree_marker").returncode == 0  # the tree itself, in place

    dev = tree.bootstrap("dev")
    assert (dev.returncode, dev.stderr) == (0, "")
    assert "Making .venv" not in dev.stdout
    assert tree.has("tiny_dev")

    tree.lose_the_packages()  # from here on pip could only fail
    for kind in ("run", "dev"):
        again = tree.bootstrap(kind)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert tree.best_seconds("run") < FAST_PATH_SECONDS


def test_a_dev_that_cannot_be_had_leaves_run_as_it_was(tree):
    assert tree.bootstrap("run").returncode == 0
    tree.lose_the_packages()
    assert tree.bootstrap("dev").returncode == 15
    assert tree.bootstrap("run").stdout == ""


def test_an_edited_project_costs_the_last_step_and_an_edited_lock_all(tree):
    (tree.path / ".venv").mkdir()
    (tree.path / ".venv" / "left-over").touch()
    assert tree.bootstrap("run").returncode == 0
    assert not (tree.path / ".venv" / "left-over").exists()

    tree.append("pyproject.toml", "# edited\n")
    told = tree.bootstrap("run").stdout
    assert "Installing millrace in place" in told
    assert "packages" not in told

    tree.append("requirements/run.txt", "# edited\n")
    assert "Removing the old .venv" in tree.bootstrap("run").stdout
    assert tree.has("tiny_run")


def test_two_at_once_build_one(tree):
    both = [tree.start("run") for _ in range(2)]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sorted("Making .venv" in out for out, _ in told) == [False, True]


@pytest.mark.parametrize("through_make", [False, True], ids=["script", "make"])
def test_ctrl_c_ends_quietly_and_the_next_run_repairs(tree, through_make):
    with socket.create_server(("127.0.0.1", 0)) as silent_index:
        url = f"http://127.0.0.1:{silent_index.getsockname()[1]}/simple"
        process = tree.start("run", through_make=through_make, **tree.only_index(url))
        connection, _ = silent_index.accept()  # pip asks, and waits for the answer
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate()
        connection.close()
    assert "Installing" in out
    assert err == "Interrupted. Run it again: it repairs what is half done.\n"
    assert process.returncode == (-signal.SIGINT if through_make else 130)
    if through_make:
        return

    repaired = tree.bootstrap("run")
    assert (repaired.returncode, repaired.stderr) == (0, "")
    assert "Removing the old .venv" in repaired.stdout
    assert tree.has("tiny_run")


def test_wrong_usage():
    for arguments in ([], ["prod"], ["run", "dev"]):
        done = subprocess.run(
            [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr == "usage: python3 infra/bootstrap.py run|dev\n"


def test_a_missing_lock_is_no_traceback(tree):
    (tree.path / "requirements" / "run.txt").unlink()
    done = tree.bootstrap("run")
    assert done.returncode == 1
    assert re.fullmatch(r"Cannot make \.venv: .*run\.txt'\n", done.stderr)


# ---- Python ----


@pytest.mark.parametrize("version", [(3, 6), (3, 10)])
def test_python_too_old(version):
    problem = bootstrap.python_problem(version)
    assert problem.code == 10
    assert f"this is 3.{version[1]}." in problem.message
    assert "make demo PYTHON=python3.12" in problem.message


def test_python_old_enough_to_be_refused_can_read_the_script():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 7))  # the oldest `ast` still knows
    found = older_pythons()
    if not found:
        pytest.skip("no Python older than 3.11 on this machine")
    for python, version in found:
        done = subprocess.run([python, SCRIPT, "run"], capture_output=True, text=True, check=False)
        assert done.returncode == 10, done.stderr
        assert f"this is {version}." in done.stderr
        assert "make demo PYTHON=python3.12" in done.stderr
        assert "Traceback" not in done.stderr


def test_python_newer_than_tested_is_a_warning():
    assert bootstrap.python_problem((3, 15)) is None
    assert "3.15 is newer than 3.14" in bootstrap.newer_python_warning((3, 15))
    assert bootstrap.newer_python_warning((3, 14)) is None


def test_versions_agree_with_pyproject():
    oldest, newest = bootstrap.OLDEST_PYTHON, bootstrap.NEWEST_PYTHON
    wanted = f'requires-python = ">=3.{oldest[1]},<3.{newest[1] + 1}"'
    assert wanted in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_no_means_to_make_a_venv(tree, missing):
    block = f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['run'];"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{block} runpy.run_path({str(tree.script)!r}, run_name='__main__')",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 11
    assert f"it lacks {missing}." in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert len(done.stderr.splitlines()) == 2


# ---- The machine ----


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_folder_that_takes_no_files():
    """The script read through /proc: the tree it stands in is then /proc/self, for root too."""
    with SCRIPT.open() as script:
        done = subprocess.run(
            [sys.executable, f"/proc/self/fd/{script.fileno()}", "run"],
            pass_fds=[script.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 12
    assert done.stderr.startswith("Cannot write in /proc/self: ")
    assert "folder you may write to" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_folder_without_permission(tmp_path):
    assert bootstrap.write_refusal(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert bootstrap.writable_problem(tmp_path, None) is None
    if os.geteuid() != 0:  # root may write regardless
        tmp_path.chmod(0o555)
        assert bootstrap.write_refusal(tmp_path) == "permission denied or read-only"


@pytest.mark.parametrize("kind", bootstrap.KINDS)
def test_too_little_disk(kind):
    needed_mb = bootstrap.DISK_NEEDED_MB[kind]
    assert bootstrap.disk_problem(kind, needed_mb) is None
    problem = bootstrap.disk_problem(kind, needed_mb - 1)
    assert problem.code == 13
    assert f"{needed_mb - 1} MB free, about {needed_mb} MB needed" in problem.message


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_free_disk_is_measured_where_the_tree_is(tmp_path):
    assert bootstrap.free_disk_mb(Path("/proc")) == 0
    assert bootstrap.free_disk_mb(tmp_path) > 0


def test_disk_that_fills_up_on_the_way():
    problem = bootstrap.pip_problem(FULL_PIP, "requirements/run.txt")
    assert problem.code == 13
    assert "The disk is full" in problem.message


def test_too_little_memory(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       8000000 kB\nMemAvailable:    1000000 kB\n")
    problem = bootstrap.memory_problem(bootstrap.available_memory_mb(meminfo))
    assert problem.code == 14
    assert "1024 MB available, about 2000 MB needed" in problem.message
    assert bootstrap.memory_problem(bootstrap.MEMORY_NEEDED_MB) is None


def test_memory_nobody_tells_of_is_enough(tmp_path):
    assert bootstrap.available_memory_mb(tmp_path / "meminfo") is None
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\n")
    assert bootstrap.available_memory_mb(tmp_path / "meminfo") is None
    assert bootstrap.memory_problem(None) is None


# ---- pip ----


def test_index_out_of_reach(tree):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/simple"
    done = tree.bootstrap("run", **tree.only_index(url))  # nobody listens there any more
    assert done.returncode == 15
    assert "The package index cannot be reached" in done.stderr
    assert "HTTPS_PROXY" in done.stderr
    assert "  pip: ERROR: No matching distribution found for tiny-run==1.0" in done.stderr
    assert "Traceback" not in done.stderr


def test_package_with_another_hash(tree):
    lock = tree.path / "requirements" / "run.txt"
    lock.write_text(re.sub(r"sha256:\w+", "sha256:" + "0" * 64, lock.read_text()))
    done = tree.bootstrap("run")
    assert done.returncode == 16
    assert "is not the one requirements/run.txt names" in done.stderr
    assert "Got" in done.stderr
    assert not tree.has("tiny_run")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (UNREACHABLE_PIP, 15),
        (TIMED_OUT_PIP, 15),
        (MISMATCH_PIP, 16),
        (UNBUILT_PIP, 17),
        (NO_WHEEL_PIP, 17),
    ],
)
def test_pip_failures_are_told_apart(said, code):
    problem = bootstrap.pip_problem(said, "requirements/run.txt")
    assert problem.code == code
    assert f"  pip: {said.splitlines()[-1]}" in problem.message


def test_a_retry_that_helped_does_not_hide_the_hash():
    warning = UNREACHABLE_PIP.splitlines()[0]
    problem = bootstrap.pip_problem(f"{warning}\n{MISMATCH_PIP}", "requirements/run.txt")
    assert problem.code == 16


# ---- The locks ----


def test_dev_lock_holds_what_run_lock_holds():
    """What lets a `dev` environment serve `run`."""
    run, dev = locked("run"), locked("dev")
    assert run
    assert run.items() <= dev.items()


@pytest.mark.parametrize("kind", bootstrap.KINDS)
def test_every_locked_package_is_exact_and_hashed(kind):
    for name, entry in locked(kind).items():
        assert re.match(r"[\w.-]+==[\w.]+( ;|$)", entry[0]), name
        assert entry[1:], name
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in entry[1:]), name


# ---- Helpers ----


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "tree")


class Tree:
    """A project in miniature around a copy of the script."""

    def __init__(self, path):
        self.path = path
        self.script = path / "infra" / "bootstrap.py"
        self.wheels = path / "wheels"
        for folder in ("infra", "requirements", "wheels"):
            (path / folder).mkdir(parents=True)
        shutil.copy(SCRIPT, self.script)
        shutil.copy(ROOT / "Makefile", path)
        run, dev = (write_wheel(self.wheels, name) for name in ("tiny_run", "tiny_dev"))
        (path / "requirements" / "run.txt").write_text(run)
        (path / "requirements" / "dev.txt").write_text(run + dev)
        (path / "tree_marker.py").touch()
        (path / "backend.py").write_text(BACKEND)
        (path / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "millrace"\nversion = "0.1.0"\n'
        )

    def bootstrap(self, kind, **pip_settings):
        process = self.start(kind, **pip_settings)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, kind, *, through_make=False, **pip_settings):
        direct = [sys.executable, str(self.script), kind]
        make = ["make", "--no-print-directory", "demo", f"PYTHON={sys.executable}"]
        settings = pip_settings or {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        foreign = ("PIP_", "MAKE", "MFLAGS", "PYTHON")
        inherited = {k: v for k, v in os.environ.items() if not k.upper().startswith(foreign)}
        return subprocess.Popen(
            make if through_make else direct,
            cwd=self.path,
            env={**inherited, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def only_index(self, url):
        return {"PIP_INDEX_URL": url, "PIP_RETRIES": "0"}

    def python(self, *arguments):
        return subprocess.run(
            [self.path / ".venv" / "bin" / "python", *arguments], capture_output=True, check=False
        )

    def has(self, module):
        return self.python("-c", f"import {module}").returncode == 0

    def append(self, name, text):
        with (self.path / name).open("a") as file:
            file.write(text)

    def lose_the_packages(self):
        for wheel in self.wheels.iterdir():
            wheel.unlink()

    def best_seconds(self, kind):
        """Wall time, with the interpreter's own start and without what site packages add to it."""

        def once():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-S", self.script, kind], check=True)
            return time.perf_counter() - started

        return min(once() for _ in range(FAST_PATH_TRIES))


# A build backend that can do one thing: install the tree in place by a path file.
BACKEND = """
import pathlib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "millrace-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, name), "w") as wheel:
        wheel.writestr("millrace.pth", str(pathlib.Path.cwd()))
        for file, text in INFO.items():
            wheel.writestr(f"millrace-0.1.0.dist-info/{file}", text)
    return name

INFO = {
    "METADATA": "Metadata-Version: 2.1\\nName: millrace\\nVersion: 0.1.0\\n",
    "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    "RECORD": "",
}
"""


def write_wheel(folder, name):
    """A wheel of one empty module; returns its line for a lock."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={urlsafe_sha256(text)},\n" for path, text in files.items())
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name.replace('_', '-')}==1.0 \\\n    --hash=sha256:{digest}\n"


def urlsafe_sha256(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def older_pythons():
    """Interpreters below 3.11 that start, on the path or where pyenv keeps them; with version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [shutil.which(f"python3.{minor}") for minor in range(6, 11)]
    places += [str(path) for path in sorted(pyenv.glob("versions/3.*/bin/python3"))]
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    found = []
    for python in filter(None, places):
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
        version = done.stdout.strip()
        if re.fullmatch(r"3\.\d+", version) and int(version[2:]) < bootstrap.OLDEST_PYTHON[1]:
            found.append((python, version))
    return found


def locked(kind):
    """Each package of a lock by name: its requirement, then its hashes."""
    text = (ROOT / "requirements" / f"{kind}.txt").read_text()
    entries = [
        [line.strip() for line in entry.split(" \\\n")]
        for entry in re.split(r"\n(?=\w)", text.strip())
    ]
    return {entry[0].split("==")[0]: entry for entry in entries}
