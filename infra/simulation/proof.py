"""`millrace verify` at the end of a run: it must prove what the oracle has counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.doubles.dynamodb import DynamoDB
from infra.doubles.s3 import S3
from infra.doubles.sqs import Sqs
from infra.doubles.world import Calm
from infra.evidence import Held, Stores
from infra.parked import parked
from infra.simulation import contracts
from infra.simulation.account import Account
from infra.simulation.known import Violation
from infra.simulation.oracle import DONE, Oracle
from infra.verify import Report, verify
from sinks.bucket import Bucket
from sinks.table import Table


def proven(account: Account) -> Report:
    """Verify's report of an account whose faults are over."""
    topology, clients, now = account.topology, account.clients, account.scheduler.now
    passed = {(account.stream.name, name): at for name, at in account.stream.checkpoints.items()}
    verbs = account.scenario.verbs
    world = Calm(lambda: now)
    s3 = S3(world, clients["s3"].buckets)
    dynamodb: Any = DynamoDB(world, clients["dynamodb"].tables)
    bucket = Bucket(s3, topology.bucket)  # type: ignore[arg-type]
    sqs = Sqs(world, clients["sqs"].queues)
    return verify(
        Stores(
            bucket=bucket,
            ledger=Table(dynamodb, topology.ledger_table.name),
            hot={contracts.NAME: Table(dynamodb, topology.hot_table.name)},
            contracts=[contracts.contract(version, verbs) for version in contracts.TEMPERATURE_MAX],
            now_micros=round(now * 1_000_000),
            parked=parked(bucket, topology.stream_mapping.on_failure_prefix, sqs, account.letters),
            held=Held(passed=passed),
        )
    )


def compared(report: Report, oracle: Oracle) -> Iterator[Violation]:
    """What verify finds though nothing is wrong, and where it counts other than the oracle.

    Producers do use an id for two readings: such a conflict is theirs.
    """
    for finding in report.findings:
        if (finding.kind, finding.check) != ("conflict", "record_id"):
            yield Violation(
                "verify finds something", f"{finding.check} {finding.name}: {finding.detail}"
            )
    delivered = oracle.elements("delivered")
    wanted = {
        "delivered_elements": len(delivered),
        "set_aside_elements": len(oracle.elements("quarantined")),
        "dropped_elements": len(oracle.elements("dropped")),
        "repeats": len(delivered) - len(oracle.identities()),
        "hot_items": len(oracle.stores.hot),
        "positions": len(oracle.known.arrivals),
        "owed_rows": 0,
    }
    for name, count in wanted.items():
        if report.counts[name] != count:
            yield Violation(
                "verify counts otherwise", f"{name}: {report.counts[name]}, not {count}"
            )
    fates = oracle.fates()
    for name in DONE:
        if report.fates[name] != fates[name]:
            told = f"{name}: {report.fates[name]}, not {fates[name]}"
            yield Violation("verify counts otherwise", told)
    if not any(judge.code for judge in oracle.known.judges.values()):
        for told in report.unchecked:
            if "rules that are not here" in told:
                yield Violation("verify does not judge again", told)
