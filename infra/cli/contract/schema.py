"""`millrace contract schema`: a contract in the words of other tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from infra.catalog import glue
from infra.catalog.tables import landing_table
from infra.cli import run, shown
from infra.contracts import catalogs
from infra.contracts.json_schema import json_schema
from infra.contracts.markdown import markdown
from transform.contract import Contract
from transform.contract_file import load_contract

EXAMPLES = """\b
Examples:
  millrace contract schema fleet.toml
  millrace contract schema telemetry --format glue
  millrace contract schema telemetry --format dynamodb --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("file")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json-schema", "arrow", "glue", "dynamodb", "markdown"]),
    default="json-schema",
    show_default=True,
    help="What to show it as.",
)
@run.json_option
def schema(file: str, form: str, as_json: bool) -> None:
    """Show a contract as JSON Schema, Arrow schema, Glue table, DynamoDB item or Markdown.

    JSON Schema is of a message, the others are of what is made of it. Glue is shown as Athena's
    DDL, with --json as Glue's TableInput; `millrace catalog` has the tables beside it.
    """
    contract = load_contract(file)
    text, value = _FORMS[form]
    if as_json:
        shown.print_json(value(contract))
    else:
        click.echo(text(contract), nl=form != "markdown")


def _dynamodb_text(contract: Contract) -> str:
    item = catalogs.dynamodb(contract)
    rows = [(name, told) for name, told in item["keys"].items()]
    for one in item["attributes"]:
        always = "" if one["always"] else ", may be absent"
        rows.append((one["name"], f"{one['type']}{always}  {one['about']}".rstrip()))
    rows.append(("kept", f"when {item['when']}" if item["when"] != "always" else "always"))
    margin = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{margin}}  {told}" for name, told in rows)


def _glue_text(contract: Contract) -> str:
    return glue.ddl(landing_table([contract]))


def _glue(contract: Contract) -> dict[str, Any]:
    return glue.table_input(landing_table([contract]))


def _json_schema_text(contract: Contract) -> str:
    return json.dumps(json_schema(contract), indent=2, ensure_ascii=False)


_FORMS: dict[str, tuple[Callable[[Contract], str], Callable[[Contract], Any]]] = {
    "json-schema": (_json_schema_text, json_schema),
    "arrow": (catalogs.arrow_text, catalogs.arrow),
    "glue": (_glue_text, _glue),
    "dynamodb": (_dynamodb_text, catalogs.dynamodb),
    "markdown": (markdown, markdown),
}
