"""Proof of conservation: of what was received, each record is in one place, and the places agree.

    stores ──▶ evidence (tables) ──▶ fate of each position (law 5) ──▶ checks ──▶ Report
                                └──▶ the rules applied to raw again ──┘

Every check is one SQL statement whose rows are what is wrong: none is what is proven. A name is
`stream/shard/sequence` for a position, else an object's key, a record id or a hot item's key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra import lake_checks
from infra.checks import CHECKS, FATES, Kind
from infra.evidence import Evidence, Stores, gather
from infra.tables import Again, loaded

if TYPE_CHECKING:
    import duckdb

KINDS: tuple[Kind, ...] = ("missing", "twice", "conflict", "unexplained")
UNREAD = "unread"  # the generation of a killer: no rules have seen it


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: of which kind, by which check, what it is about, and why.

    `cause` is the name of another finding that explains it: an object that lost the record.
    """

    kind: Kind
    check: str
    name: str
    detail: str
    cause: str = ""


@dataclass(frozen=True)
class Report:
    """What was proven, and what contradicts it: first what explains others, each before these.

    `fates` counts positions; `counts` what was read; `scope` and `unchecked` say in words how far
    the proof reaches and what it leaves out.
    """

    findings: tuple[Finding, ...]
    fates: dict[str, int]
    counts: dict[str, int]
    scope: tuple[str, ...]
    unchecked: tuple[str, ...]

    @property
    def proven(self) -> bool:
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        kinds = Counter(finding.kind for finding in self.findings)
        return {
            "proven": self.proven,
            "wrong": {kind: kinds[kind] for kind in KINDS},
            "fates": self.fates,
            "counts": self.counts,
            "scope": list(self.scope),
            "unchecked": list(self.unchecked),
            "findings": [vars(finding) for finding in self.findings],
        }


def verify(stores: Stores) -> Report:
    """Read every store and prove conservation, or name what contradicts it."""
    return examine(gather(stores))


def examine(evidence: Evidence) -> Report:
    """The proof from what was read."""
    with loaded(evidence) as (db, again):
        findings = [*_plain_findings(evidence), *_run_checks(db)]
        fates = dict(db.execute("SELECT fate, count(*) FROM fates GROUP BY ALL").fetchall())
        counts = _counts(db, evidence)
    unchecked = list(evidence.stores.held.unchecked)
    if unread := again.unknown.pop(UNREAD, 0):
        unchecked.append(f"{unread:,} rows were set aside unread: no rules were applied to them")
    if again.unknown:
        rows = sum(again.unknown.values())
        unchecked.append(
            f"{rows:,} rows of rules that are not here (generations "
            f"{', '.join(sorted(again.unknown))}): their verdicts were not judged again"
        )
    if waiting := fates.get("waiting", 0):
        unchecked.append(f"{waiting:,} positions wait for their source to bring them again")
    if owed := counts["owed_rows"]:
        unchecked.append(f"{owed:,} hot items are owed by repair: open debts, not yet paid")
    return Report(
        findings=tuple(_ordered(findings)),
        fates={fate: fates.get(fate, 0) for fate in FATES},
        counts=counts,
        scope=(*_scope(counts, again), *evidence.stores.held.scope),
        unchecked=tuple(unchecked),
    )


def _run_checks(db: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    for check in (*CHECKS, *lake_checks.CHECKS):
        for name, detail, *cause in db.execute(check.sql).fetchall():
            yield Finding(check.kind, check.name, name, detail, *filter(None, cause))


def _ordered(findings: Sequence[Finding]) -> list[Finding]:
    """What explains others comes first, and those right behind it."""
    causes = {finding.cause for finding in findings}

    def place(finding: Finding) -> tuple[bool, str, bool, int, str, str]:
        rest = (KINDS.index(finding.kind), finding.check, finding.name)
        if finding.cause or finding.name in causes:
            return (False, finding.cause or finding.name, bool(finding.cause), *rest)
        return (True, "", False, *rest)

    return sorted(findings, key=place)


def _plain_findings(evidence: Evidence) -> Iterable[Finding]:
    for key in evidence.stores.parked.unreadable:
        yield Finding("unexplained", "on_failure", key, "is not what AWS writes there")
    for key in evidence.lakes.broken:
        yield Finding("unexplained", "lake", key, "a lake needs it, and it is not there")
    for note in evidence.erasures:
        if not note.finished_at:
            yield Finding("unexplained", "erasure", note.key, "was cut short; run it again")


def _counts(db: duckdb.DuckDBPyConnection, evidence: Evidence) -> dict[str, int]:
    def one(sql: str) -> int:
        return int(db.execute(sql).fetchall()[0][0])

    return {
        "raw_objects": len(evidence.raw_tables),
        "raw_records": evidence.raw.num_rows,
        "positions": one("SELECT count(*) FROM members"),
        "elements": one("SELECT count(*) FROM counted"),
        "landing_rows": evidence.landing.num_rows,
        "quarantine_rows": evidence.quarantine.num_rows,
        "delivered_elements": one("SELECT count(*) FROM delivered"),
        "set_aside_elements": one("SELECT count(*) FROM set_aside"),
        "markers": one("SELECT count(*) FROM dropped_elements WHERE _rule = '_marker'"),
        "dropped_elements": one("SELECT count(*) FROM dropped_elements"),
        "repeats": one(
            "SELECT count(*) - count(DISTINCT (_contract, _record_id, _digest)) FROM delivered"
        ),
        "lake_rows": one("SELECT count(*) FROM lake_standing"),
        "taken_objects": evidence.lakes.taken.num_rows,
        "retired_objects": one("SELECT count(*) FROM retired"),
        "attempts": len(evidence.attempts),
        "parked": evidence.stores.parked.rows.num_rows,
        "hot_items": one("SELECT count(*) FROM hot_items"),
        "owed_rows": one("SELECT coalesce(sum(rows), 0) FROM owed"),
        "held_records": evidence.stores.held.records.num_rows,
    }


def _scope(counts: dict[str, int], again: Again) -> Iterator[str]:
    yield (
        f"everything Lambda received: {counts['positions']:,} positions in "
        f"{counts['raw_objects']:,} raw objects, {counts['elements']:,} elements"
    )
    if counts["markers"]:
        yield f"{counts['markers']:,} of them are markers, put by the sealer and dropped"
    yield f"rules applied again to {again.judged:,} raw records, verdict by verdict"
    yield (
        f"{counts['attempts']:,} ledger attempts against the objects they name, and "
        f"{counts['hot_items']:,} hot items against the records that want them"
    )
    if taken := counts["taken_objects"]:
        yield (
            f"the lake's {counts['lake_rows']:,} rows against the {taken:,} objects it has taken "
            f"in; {counts['retired_objects']:,} of them are gone, and proven by the lake alone"
        )
