"""What the tree promises about itself: one direction of imports, a pure core, nothing private."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each may import those before it and itself.
LAYERS = ("transform", "sinks", "ingest", "infra", "loadtests", "tests")

FOLDERS = {*LAYERS, "requirements", ".ci"}

# What `transform` does without, so that the same bytes in give the same bytes out, anywhere.
IMPURE_MODULES = {"boto3", "botocore", "time"}
IMPURE_NAMES = {
    "os": {"environ", "environb", "getenv", "getenvb"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}

# In pieces, for this file is searched as well.
REGISTRIES = ("py" + "pi.org", "python" + "hosted.org", "registry." + "npm" + "js")
HOMES = ("root", "work", "home", "Users")
MACHINE_PATH = re.compile(r"(?<![\w.}-])/(?:" + "|".join(HOMES) + r")/")


def test_imports_go_one_way():
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for position, layer in enumerate(LAYERS)
        for file in sources(layer)
        for line, name in imports(file.read_text(), package_of(file))
        if name.split(".")[0] in LAYERS[position + 1 :]
    ]
    assert wrong == []


def test_transform_knows_no_cloud_no_environment_and_no_clock():
    wrong = [
        f"{file.relative_to(ROOT)}:{line} uses {name}"
        for file in sources("transform")
        for line, name in impurities(file.read_text(), package_of(file))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import sinks.raw", "sinks.raw"),
        ("from sinks import raw", "sinks.raw"),
        ("from ..sinks import raw", "sinks.raw"),
        ("from .records import Row", "transform.records.Row"),
        ("def f():\n    import sinks", "sinks"),
        ("if TYPE_CHECKING:\n    from sinks import raw", "sinks.raw"),
        ("importlib.import_module('sinks.raw')", "sinks.raw"),
    ],
)
def test_every_kind_of_import_is_seen(source, name):
    assert name in [found for _, found in imports(source, "transform")]


@pytest.mark.parametrize(
    "source",
    [
        "import boto3",
        "from botocore.config import Config",
        "import time",
        "from time import monotonic",
        "import os\nos.environ['A']",
        "import os\nos.getenv('A')",
        "from os import environ",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime as dt\ndt.now()",
        "from datetime import date\ndate.today()",
    ],
)
def test_every_kind_of_impurity_is_seen(source):
    assert list(impurities(source, "transform"))


@pytest.mark.parametrize(
    "source",
    ["import os.path", "from datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC)"],
)
def test_what_depends_on_arguments_alone_is_pure(source):
    assert list(impurities(source, "transform")) == []


def test_top_level_folders():
    assert {Path(name).parts[0] for name in committed() if "/" in name} == FOLDERS


def test_no_file_names_a_registry_or_a_machine():
    wrong = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in committed()
        if (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line) or any(registry in line for registry in REGISTRIES)
    ]
    assert wrong == []


@pytest.mark.parametrize("before", ["", " ", '"', "file:/", "="])
def test_a_machine_path_is_seen(before):
    assert MACHINE_PATH.search(f"{before}/{HOMES[0]}/x")
    assert not MACHINE_PATH.search(f"folder/{HOMES[0]}/x")


# ---- Helpers ----


def committed():
    """What a commit of everything here would hold, by path from the root."""
    listing = [
        "git",
        "-C",
        str(ROOT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    done = subprocess.run(listing, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return sorted(filter(None, done.stdout.split("\0")))


def sources(layer):
    return sorted((ROOT / layer).rglob("*.py"))


def package_of(file):
    """The package relative imports in `file` start from."""
    return ".".join(file.relative_to(ROOT).parent.parts)


def imports(source, package):
    """Line and full name of everything imported, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield node.lineno, alias.name
            case ast.ImportFrom():
                above = package.split(".")[: 1 - node.level or None] if node.level else []
                for alias in node.names:
                    yield node.lineno, ".".join([*above, *filter(None, [node.module]), alias.name])
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def impurities(source, package):
    """Line and name of each use of the cloud, the environment or a clock."""
    known_as = {}
    for line, name in imports(source, package):
        root, _, rest = name.partition(".")
        if root in IMPURE_MODULES or rest in IMPURE_NAMES.get(root, ()):
            yield line, name
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            known_as |= {alias.asname: alias.name for alias in node.names if alias.asname}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).rpartition(".")[2]
            if node.attr in IMPURE_NAMES.get(known_as.get(owner, owner), ()):
                yield node.lineno, ast.unparse(node)
