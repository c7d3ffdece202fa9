"""A folder for each Lambda function that holds what the function imports, and no more.

    python -m infra.bundles OUT [--packages SITE_PACKAGES] [--no-strip]

What a function imports is read from its source, lazy imports included: our own modules one by one,
of others whole distributions with what they require, less what is known to be needless
(`LEFT_OUT`). Distributions are taken from `--packages`, so those of another platform can be
bundled here. A test starts every handler from its folder alone.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

from infra.topology import pipeline

ROOT = Path(__file__).parent.parent
OURS = ("transform", "sinks", "ingest")
MB = 1_000_000  # bytes, as in the targets and on AWS' pages
SERVICES = ("dynamodb", "glue", "lambda", "s3", "sqs", "stepfunctions", "sts")
"""Whose clients functions make; `sts` is for credentials of a web identity."""

LEFT_OUT: dict[str, tuple[str, ...]] = {
    "": ("*.pyc", "*.pyi", "*.pyx", "*.pxi", "*.pxd", "*/tests/*", "*.dist-info/RECORD"),
    # Filesystems and formats that nothing here reads, whose modules fail to import in peace.
    # libarrow_acero, _compute, _dataset and _substrait must stay: all of pyarrow's modules are
    # linked against them, used or not.
    "pyarrow": (
        "pyarrow/include/*",
        "pyarrow/src/*",
        "pyarrow/libarrow_flight*",
        "pyarrow/libarrow_python_flight*",
        "pyarrow/libarrow_s3*",
        "pyarrow/libarrow_python_parquet_encryption*",
        # The same library under three names, of which the linker asks for one.
        "pyarrow/libarrow_python.so",
        "pyarrow/libarrow_python.so.*.*",
        "pyarrow/_flight.*",
        "pyarrow/_s3fs.*",
        "pyarrow/_gcsfs.*",
        "pyarrow/_azurefs.*",
        "pyarrow/_hdfs.*",
        "pyarrow/_orc.*",
        "pyarrow/_dataset*",
        "pyarrow/_substrait.*",
        "pyarrow/_feather.*",
        "pyarrow/_json.*",
        "pyarrow/_cuda*",
        "pyarrow/_parquet_encryption.*",
        "pyarrow/_pyarrow_cpp_tests.*",
    ),
    "boto3": ("boto3/examples/*",),
    "aws-lambda-powertools": ("aws_lambda_powertools/event_handler/openapi/swagger_ui/*",),
    "protobuf": ("google/protobuf/compiler/*",),
}

KEPT_FOR: dict[str, tuple[str, ...]] = {
    # It reads and writes tables by datasets, on S3 by Arrow's own client.
    "pyiceberg": (
        "pyarrow/libarrow_s3*",
        "pyarrow/_s3fs.*",
        "pyarrow/_dataset*",
        "pyarrow/_json.*",
    ),
}
"""What is left out of bundles, but not of those with this module."""

STRIPPED = ("*.so", "*.so.*")  # of symbols for debuggers and of no use to the loader


@dataclass(frozen=True)
class Bundle:
    """What a function needs: files by their place in the bundle."""

    handler: str
    files: dict[str, Path]


def write(bundles: Mapping[str, Bundle], out: Path, *, strip: bool = True) -> dict[str, float]:
    """Make a folder for each bundle anew; returns their sizes in MB.

    Libraries are stripped of symbols where a tool that can do it is there, once each: in the other
    folders they are links.
    """
    made: dict[Path, Path] = {}
    for name, one in bundles.items():
        shutil.rmtree(out / name, ignore_errors=True)
        for place, file in one.files.items():
            target = out / name / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if file in made:
                os.link(made[file], target)
                continue
            shutil.copyfile(file, target)
            if any(fnmatch(place, library) for library in STRIPPED):
                made[file] = target
                if strip:
                    _strip(target)
    return {name: round(size_of(out / name) / MB, 1) for name in bundles}


def bundle(handler: str, packages: Path) -> Bundle:
    """What a handler (`package.module.function`) imports."""
    modules, others = closure(handler.rpartition(".")[0])
    files = {str(file.relative_to(ROOT)): file for file in modules}
    for name in OURS:
        for file in (ROOT / name).rglob("*.toml"):  # contracts that are known by name
            files[str(file.relative_to(ROOT))] = file
    kept = [
        pattern for name, patterns in KEPT_FOR.items() if name in others for pattern in patterns
    ]
    for distribution in _required(others, packages):
        files |= _files_of(distribution, kept)
    return Bundle(handler, dict(sorted(files.items())))


def closure(module: str) -> tuple[set[Path], set[str]]:
    """Files of our own modules that a module needs, and the top-level names of all others."""
    waiting, ours, others = [module], set[Path](), set[str]()
    while waiting:
        name = waiting.pop()
        if name.partition(".")[0] not in OURS:
            others.add(name.partition(".")[0])
            continue
        for file in _sources_of(name):
            if file not in ours:
                ours.add(file)
                waiting += imports_of(file)
    return ours, others - set(sys.stdlib_module_names)


def imports_of(file: Path) -> Iterator[str]:
    """Modules that a file imports, at its top or within functions; not those for types alone."""
    waiting: list[ast.AST] = [ast.parse(file.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _sources_of(name: str) -> Iterator[Path]:
    """The file of a module of ours and those of its packages; none for a name within a module."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        path = ROOT.joinpath(*parts[:count])
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                yield file


def _required(names: Iterable[str], packages: Path) -> list[Distribution]:
    """The distributions that have these modules, and all that they require and is installed."""
    installed = _installed(packages)
    waiting = [name for name, one in installed.items() if _modules_of(one) & set(names)]
    found: dict[str, Distribution] = {}
    while waiting:
        name = waiting.pop()
        if name in found or name not in installed:
            continue
        found[name] = installed[name]
        for line in installed[name].requires or ():
            requirement, _, marker = line.partition(";")
            if "extra" not in marker:
                waiting.append(_plain(re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]))
    return list(found.values())


@cache
def _installed(packages: Path) -> dict[str, Distribution]:
    return {_plain(one.metadata["Name"]): one for one in distributions(path=[str(packages)])}


def _modules_of(distribution: Distribution) -> set[str]:
    """Top-level modules of a distribution; those in the namespace `google` count as that."""
    tops = {str(file).partition("/")[0] for file in distribution.files or ()}
    return {top.partition(".")[0] for top in tops if not top.endswith((".dist-info", ".."))}


def _files_of(distribution: Distribution, but: Collection[str]) -> dict[str, Path]:
    """A distribution's files less what is left out; `but` are patterns of what is not."""
    name = _plain(distribution.metadata["Name"])
    out = [p for p in (*LEFT_OUT[""], *LEFT_OUT.get(name, ())) if p not in but]
    places = [str(file) for file in distribution.files or ()]
    kept = [
        place
        for place in places
        if not place.startswith("..")
        and not any(fnmatch(place, pattern) for pattern in out)
        and _serves(place)
    ]
    return {place: Path(str(distribution.locate_file(place))) for place in kept}


def _serves(place: str) -> bool:
    """Whether a file is no description of a service, or of one that functions talk to."""
    head, _, rest = place.partition("/data/")
    if head not in {"boto3", "botocore"} or "/" not in rest:
        return True
    return rest.partition("/")[0] in SERVICES


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _strip(library: Path) -> None:
    """Take the debuggers' symbols out. What a tool cannot read, another platform's, is left."""
    if tool := shutil.which("llvm-strip") or shutil.which("strip"):
        subprocess.run(  # noqa: S603  binutils, on our own copy
            [tool, "--strip-unneeded", str(library)], capture_output=True, check=False
        )


def every_handler() -> dict[str, str]:
    """Handlers of all functions, by name: those of `handlers`, and upkeep's."""
    upkeep = pipeline("telemetry", "telemetry").upkeep
    return {**handlers(), "compact": upkeep.compact.handler, "publish": upkeep.publish.handler}


def handlers() -> dict[str, str]:
    """Handlers on the path of a record, and repair's, by their functions' names in the topology.

    Without their pipeline's name.
    """
    topology = pipeline("telemetry", "telemetry")
    functions = {name: one for name, one in vars(topology).items() if hasattr(one, "handler")}
    return {name.replace("_", "-"): one.handler for name, one in functions.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--packages", type=Path, default=Path(sysconfig.get_path("platlib")))
    parser.add_argument("--no-strip", action="store_true")
    asked = parser.parse_args()
    bundles = {name: bundle(handler, asked.packages) for name, handler in every_handler().items()}
    sizes = write(bundles, asked.out, strip=not asked.no_strip)
    sys.stdout.write(json.dumps(sizes) + "\n")


if __name__ == "__main__":
    main()
