"""The command group: every command, and what `millrace --help` says."""

from __future__ import annotations

from importlib import metadata

import click

from infra.cli.catalog import catalog
from infra.cli.compact import compact
from infra.cli.contract import contract
from infra.cli.demo import demo
from infra.cli.erase import erase
from infra.cli.export import export
from infra.cli.hot import hot
from infra.cli.ingest import ingest
from infra.cli.partitions import partitions
from infra.cli.quarantine import quarantine
from infra.cli.query import query
from infra.cli.replay import replay
from infra.cli.reprocess import reprocess
from infra.cli.resume import resume
from infra.cli.run import Group
from infra.cli.seal import seal
from infra.cli.sweep import sweep
from infra.cli.up import up
from infra.cli.verify import verify
from infra.cli.why import why

EPILOG = """\b
Exit codes: 0 all is well            1 a record is unaccounted for, or a check failed
            2 wrong input            3 time ran out before every record had a fate
            4 cannot run here        5 paused by the breaker; see `millrace resume`
            130 interrupted

\b
Examples:
  millrace demo
  millrace ingest readings.ndjson --contract ./my-fleet.toml
  millrace query "SELECT count(*) FROM records"
"""

try:
    VERSION = metadata.version("millrace")
except metadata.PackageNotFoundError:  # run from the tree
    VERSION = "0+tree"


@click.group(
    cls=Group,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION)
def group() -> None:
    """Millrace: streaming ingestion that can prove where every record is.

    Everything runs on this machine, on loopback, with its state in one directory (./.millrace).
    """


COMMANDS = (
    *(demo, up, contract, ingest, query, export, hot),
    *(compact, seal, partitions, verify, why),
    *(quarantine, replay, reprocess, sweep, resume, erase, catalog),
)

for command in COMMANDS:
    group.add_command(command)
