"""A function's bundle holds what it imports, runs alone, and is no larger than it may be."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from infra import bundles
from infra.bundles import ROOT, bundle, closure, every_handler, handlers, imports_of
from loadtests.bench import bundled
from loadtests.bench.local import endpoint

PACKAGES = Path(sysconfig.get_path("platlib"))
BUNDLE_MB_MAX = 130
LAMBDA_MB_MAX = 250  # Lambda quota: unzipped, layers included


def test_functions_run_from_their_bundles_alone(tmp_path: Path):
    sizes = bundled.make(tmp_path / "bundles")
    with endpoint(tmp_path) as aws:
        state = bundled.through(aws, tmp_path / "bundles")
    assert sizes.keys() == handlers().keys()
    assert max(sizes.values()) <= BUNDLE_MB_MAX
    done = state["transform"]
    assert done["landing_rows"] == state["hot"]["written"] > 0
    assert done["quarantine_rows"] > 0
    assert done["rejected"]


@pytest.mark.parametrize(("name", "library"), [("compact", "duckdb"), ("publish", "pyiceberg")])
def test_upkeep_starts_from_its_bundle_alone_and_fits_in_lambda(
    name: str, library: str, tmp_path: Path
):
    handler = every_handler()[name]
    sizes = bundles.write({name: bundle(handler, PACKAGES)}, tmp_path)
    module = handler.rpartition(".")[0]
    more = "pyiceberg.io.pyarrow" if name == "publish" else library
    code = f"import sys; sys.path[:0] = [{str(tmp_path / name)!r}]; import {module}, {more}"
    started = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(started, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert sizes[name] <= LAMBDA_MB_MAX


@pytest.mark.parametrize("handler", handlers().values())
def test_a_bundle_has_its_handler_and_nothing_of_the_laptop(handler: str):
    files = bundle(handler, PACKAGES).files
    assert f"{handler.rpartition('.')[0].replace('.', '/')}.py" in files
    tops = {place.partition("/")[0] for place in files}
    assert not tops & {"infra", "tests", "duckdb", "ministack", "moto", "pydantic", "click"}
    assert not [place for place in files if place.endswith((".pyc", ".pyx", ".h"))]


def test_lazy_imports_count_and_those_for_types_do_not(tmp_path: Path):
    file = tmp_path / "some.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import never\nelse:\n    import otherwise\n"
        "def f():\n    import lazily.there\n    from a import b\n"
    )
    found = set(imports_of(file))
    assert found >= {"typing", "otherwise", "lazily.there", "a", "a.b"}
    assert "never" not in found


def test_the_closure_is_of_our_modules_and_names_all_others():
    ours, others = closure("ingest.handlers.transform")
    assert ROOT / "transform" / "units.py" in ours
    assert ROOT / "transform" / "__init__.py" in ours
    assert ROOT / "ingest" / "replay.py" not in ours
    assert others >= {"pyarrow", "msgspec", "ucumvert", "boto3"}
    assert "json" not in others


def test_a_library_is_stripped_once_and_linked(tmp_path: Path):
    one = bundle(handlers()["hot"], PACKAGES)
    small = {place: file for place, file in one.files.items() if place.startswith("orjson")}
    few = bundles.Bundle("x", small)
    bundles.write({"a": few, "b": few}, tmp_path)
    (library,) = (tmp_path / "a").rglob("*.so")
    assert library.stat().st_nlink == 2
    original = small[str(library.relative_to(tmp_path / "a"))]
    assert original.stat().st_size >= library.stat().st_size
