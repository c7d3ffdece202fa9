"""The environment is read once, when a handler is first called, and what is missing is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest import settings
from ingest.clients import Transport
from ingest.environment import SettingsError
from ingest.settings import Settings, Wiring
from ingest.stages import ANSWER_SECONDS, ENQUEUE_SECONDS
from sinks.repair import Limits
from tests.support import SETTINGS, TOPOLOGY, Clock, Context, cloud, json_error, loopback
from transform.contract_file import ContractError

ROOT = Path(__file__).parent.parent
COMPLETE = dict(TOPOLOGY.ingest_stream.environment)
HANDLERS = ["hot", "kinesis", "repair", "sqs", "transform"]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment in which clients can be made, and a process that has none yet."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    settings.wiring.cache_clear()
    yield monkeypatch
    settings.wiring.cache_clear()


def test_settings_are_what_the_environment_says():
    assert Settings.of(COMPLETE) == Settings(
        pipeline="millrace-telemetry",
        bucket="millrace",
        contract="telemetry",
        hot_table="millrace-telemetry-hot",
        workflow="millrace-telemetry-batch",
        transform_seconds=20,
        ledger_table="millrace-ledger",
        repair_queue="millrace-telemetry-repair",
        repair=Limits(share_max=0.2, rows_max=100_000),
    )
    said = {"MILLRACE_REPAIR_SHARE_MAX": "0.05", "MILLRACE_REPAIR_ROWS_MAX": "7"}
    assert Settings.of(COMPLETE | said).repair == Limits(share_max=0.05, rows_max=7)


def test_how_patient_a_seal_is_can_be_said():
    said = {"MILLRACE_LATENESS_SECONDS": "3600", "MILLRACE_MARKER_SECONDS": "5"}
    seal = Settings.of({**TOPOLOGY.upkeep.compact.environment, **said}).seal
    assert (seal.lateness_seconds, seal.marker_seconds) == (3_600, 5)
    with pytest.raises(SettingsError, match="MILLRACE_LATENESS_SECONDS is '10m', no number"):
        Settings.of(COMPLETE | {"MILLRACE_LATENESS_SECONDS": "10m"})


def test_an_endpoint_for_all_services_has_no_metrics(aws: pytest.MonkeyPatch):
    assert Wiring(SETTINGS).cloudwatch is not None
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert Wiring(SETTINGS).cloudwatch is None
    aws.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", "http://127.0.0.1:2")
    assert Wiring(SETTINGS).cloudwatch is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("MILLRACE_REPAIR_SHARE_MAX", value) for value in ("20%", "-0.1", "1.01", "nan", "inf")),
        *(("MILLRACE_REPAIR_ROWS_MAX", value) for value in ("many", "-1", "1.5", "1e5")),
    ],
)
def test_a_limit_that_is_none_is_named(name: str, value: str):
    with pytest.raises(SettingsError, match=f"variable {name} is '{value}', no"):
        Settings.of(COMPLETE | {name: value})


def test_repair_needs_its_table_and_without_a_queue_there_are_no_debts():
    wiring = Wiring(replace(SETTINGS, ledger_table="", repair_queue=""))
    with pytest.raises(SettingsError, match="MILLRACE_LEDGER_TABLE is not set"):
        _ = wiring.ledger_table
    assert wiring.repair_queue is None


def test_a_send_is_given_up_before_the_time_for_it_is(aws: pytest.MonkeyPatch):
    del aws
    made = Wiring(SETTINGS).repair_queue
    assert made is not None
    assert made.name == "millrace-telemetry-repair"
    assert made.client.meta.config.read_timeout < ENQUEUE_SECONDS
    assert made.client.meta.config.retries["total_max_attempts"] == 1


@pytest.mark.parametrize(
    "name",
    [
        *("POWERTOOLS_SERVICE_NAME", "POWERTOOLS_METRICS_NAMESPACE"),
        *("MILLRACE_BUCKET", "MILLRACE_CONTRACT", "MILLRACE_HOT_TABLE"),
    ],
)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(name: str, value: str | None):
    environment = {key: text for key, text in COMPLETE.items() if key != name}
    if value is not None:
        environment[name] = value
    with pytest.raises(SettingsError, match=f"^the environment variable {name} is not set$"):
        Settings.of(environment)


@pytest.mark.parametrize("value", ["", "2.5", "-1", "soon"])
def test_a_number_that_is_none_is_named(value: str):
    with pytest.raises(SettingsError, match=r"MILLRACE_TRANSFORM_SECONDS is .*, no number"):
        Settings.of(COMPLETE | {"MILLRACE_TRANSFORM_SECONDS": value})


def test_only_ingest_needs_a_workflow():
    stage = Settings.of(TOPOLOGY.transform.environment)
    assert stage.workflow == ""
    with pytest.raises(SettingsError, match="MILLRACE_WORKFLOW is not set"):
        _ = Wiring(stage).workflow


def test_nothing_is_made_before_it_is_used():
    """A Wiring in a process without region or credentials is fine until a client is asked for."""
    wiring = Wiring(SETTINGS)
    assert {"bucket", "hot_table", "workflow"}.isdisjoint(vars(wiring))


def test_a_process_has_one_wiring(aws: pytest.MonkeyPatch):
    for name, value in COMPLETE.items():
        aws.setenv(name, value)
    first = settings.wiring()
    assert settings.wiring() is first
    assert first.settings == Settings.of(COMPLETE)
    with cloud() as account:
        first.bucket = account.bucket
        assert first.transform(0) is first.transform(0)
        assert first.transform(0).generation != first.transform(1).generation


def test_an_unknown_contract_is_named(aws: pytest.MonkeyPatch):
    del aws
    wiring = Wiring(Settings(**{**vars(SETTINGS), "contract": "nothing"}))
    with pytest.raises(ContractError, match="no contract is called 'nothing'"):
        wiring.transform(0)


def test_clients_wait_less_than_a_stage_lives(aws: pytest.MonkeyPatch):
    del aws
    wiring = Wiring(SETTINGS)
    assert wiring.bucket.client.meta.config.read_timeout < TOPOLOGY.transform.timeout_seconds
    assert wiring.hot_table.client.meta.config.read_timeout < ANSWER_SECONDS
    assert (wiring.bucket.name, wiring.hot_table.name) == (SETTINGS.bucket, SETTINGS.hot_table)
    assert wiring.workflow.arn == SETTINGS.workflow
    for made in (wiring.bucket.client, wiring.hot_table.client):
        assert made.meta.config.max_pool_connections >= wiring.hot_table.threads


@pytest.mark.parametrize("transport", ["wire", "boto3"])
def test_the_hot_table_is_asked_once_a_try_because_the_sink_knows_the_deadline(
    aws: pytest.MonkeyPatch, transport: Transport
):
    clock = Clock()
    with loopback(json_error(500, "InternalServerError")) as server:
        aws.setenv("AWS_ENDPOINT_URL", server.url)
        wiring = Wiring(replace(SETTINGS, transport=transport), clock)
        table = wiring.hot_table
        server.clients.append(table.writes.service.pool if table.writes else table.client)
        items = {("p", "s"): {"pk": {"S": "p"}, "sk": {"S": "s"}}}
        deadline = wiring.deadline(Context(2_000), 1)
        assert table.put_all(items, deadline, clock.waiting()) == {("p", "s")}
        assert len(server.requests) == len(clock.naps)


@pytest.mark.parametrize(
    ("environment", "transport"),
    [({}, "wire"), *(({"MILLRACE_TRANSPORT": name}, name) for name in ("wire", "boto3"))],
)
def test_the_transport_is_our_own_unless_it_is_said_to_be_boto3(
    environment: dict[str, str], transport: str
):
    assert Settings.of(COMPLETE | environment).transport == transport


@pytest.mark.parametrize("value", ["", "Wire", "botocore", "boto3 "])
def test_a_transport_that_is_none_is_named(value: str):
    with pytest.raises(SettingsError, match=f"MILLRACE_TRANSPORT is '{value}', not wire or boto3"):
        Settings.of(COMPLETE | {"MILLRACE_TRANSPORT": value})


@pytest.mark.parametrize(("remaining_ms", "left"), [(60_000, 54), (6_000, 0), (0, -6)])
def test_a_deadline_is_before_lambda_would_kill_the_function(remaining_ms: int, left: float):
    clock = Clock()
    deadline = Wiring(SETTINGS, clock).deadline(Context(remaining_ms), 6)
    assert deadline.left == pytest.approx(left)
    assert deadline.at == pytest.approx(clock.now + left)


# Importing


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run this in a process whose environment holds nothing but the way to the modules."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_importing_a_handler_reads_no_setting_and_calling_it_names_what_is_missing():
    told = python(f"""
import os

class Spy(type(os.environ)):
    read = set()
    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)

os.environ.__class__ = Spy

from importlib import import_module

modules = [import_module("ingest.handlers." + name) for name in {HANDLERS}]
settings = sorted(name for name in Spy.read if name.startswith("MILLRACE"))
assert not settings, settings
for module in modules:
    assert callable(module.handler)
for module, event in zip(modules, [{{}}, None, None, None, {{}}]):
    if event is not None:
        try:
            module.handler(event, None)
        except Exception as error:
            print(type(error).__name__, error)
""")
    assert told.stderr == ""
    missing = "SettingsError the environment variable POWERTOOLS_METRICS_NAMESPACE is not set"
    assert told.stdout.splitlines() == [missing] * 2


def test_an_event_that_is_not_a_mappings_is_refused_before_settings_are_needed():
    told = python("from ingest.handlers.kinesis import handler; handler({'detail': {}}, None)")
    assert "EventError: the event has no list `Records`" in told.stderr


@pytest.mark.parametrize("module", ["sinks.hot", "sinks.landing", "transform.pipeline"])
def test_sinks_and_transform_can_be_imported_without_the_edge(module: str):
    told: Any = python(f"import sys, {module}; print('ingest' in sys.modules)")
    assert (told.stdout.strip(), told.stderr) == ("False", "")


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_cold_start_pays_for_no_boto3(handler: str):
    """Powertools, where there are metrics, looks at botocore's outermost module, and no more."""
    told = python(f"""
import sys
from importlib import import_module

import_module("ingest.handlers.{handler}")
print(sorted(name for name in sys.modules if name.startswith(("boto", "urllib3"))))
""")
    assert told.stderr == ""
    assert told.stdout.strip() in ("['botocore']", "[]")
