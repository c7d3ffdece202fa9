"""How a fleet has moved away from its contract, and a patch for what could follow it.

Unknown fields are seen in `_rescued`, everything else in quarantine. A patch is a proposal: it has
been read as a contract and tried on what it is about before it is shown.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from infra.contracts.draft_text import field_lines
from infra.contracts.drafts import AHEAD_SECONDS
from infra.contracts.edits import unified, with_lines
from infra.contracts.guess import guesses
from infra.contracts.naming import Path
from infra.contracts.observed import Seen
from infra.contracts.opened import Observed
from infra.contracts.patches import Proposal, Rejects, member, opened, propose
from infra.contracts.trial import applied
from infra.lake import Lake
from infra.views import NAMES
from transform.contract import Contract, dotted
from transform.contract_file import ContractError, parse_contract
from transform.timestamps import EPOCH, MICROSECOND

LOOKED_AT_MAX = 1_000  # values or bodies of one drift that a proposal is made from
DEVICES_SHOWN = 5
PINNED = "\n[pinned]\n"  # what follows in a contract's source was not written by a person


@dataclass(frozen=True)
class Drift:
    """One way in which messages differ from the contract.

    `share` is of all rows (or messages, for a rejection) since it began; `devices` names some.
    """

    what: str
    field: str
    count: int
    share: float
    since: datetime
    until: datetime
    devices: tuple[str, ...]
    note: str
    patch: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"since": self.since.isoformat(), "until": self.until.isoformat()}


def drifts(lake: Lake, contract: Contract) -> list[Drift]:
    """Every drift of a contract's records, the most frequent first."""
    found = [*_unknown(lake, contract), *_rejected(lake, contract)]
    return sorted(found, key=lambda drift: (-drift.count, drift.what, drift.field))


def _unknown(lake: Lake, contract: Contract) -> Iterator[Drift]:
    """Fields that the contract does not name."""
    for row in lake.query(_UNKNOWN.format(**_names(contract))).to_pylist():
        path = _path(row["fullkey"])
        values = [json.loads(text) for text in row["texts"]]
        proposal = _new_field(contract, path, values, row["until"])
        row["devices"] = [] if contract.field(contract.device).privacy else row["devices"]
        yield _drift("unknown field", ".".join(path), row, contract, proposal)


def _rejected(lake: Lake, contract: Contract) -> Iterator[Drift]:
    """Reasons and fields of what is set aside."""
    by_name = {field.name: field for field in contract.fields}
    for row in lake.query(_REJECTED.format(**_names(contract))).to_pylist():
        field = by_name.get(row["_field"])
        messages = [one for body in row["bodies"] for one in opened(body, contract)]
        rejects = Rejects(contract, source_text(contract), field, messages, row["details"])
        if row["_reason"] == "unknown_field":
            proposal = _named_in(rejects, row["until"])
        else:
            proposal = propose(row["_reason"], rejects)
        proposal = _helpful(proposal, row, contract)
        row["devices"] = _devices(messages, contract)
        yield _drift(row["_reason"], row["_field"] or "", row, contract, proposal)


def _drift(
    what: str, field: str, row: Mapping[str, Any], contract: Contract, proposal: Proposal
) -> Drift:
    text = source_text(contract)
    patch = None
    if proposal.text is not None and proposal.text != text:
        patch = unified(text, proposal.text, f"{contract.name}.toml")
    return Drift(
        what=what,
        field=field,
        count=row["count"],
        share=row["count"] / max(row["of"], 1),
        since=row["since"],
        until=row["until"],
        devices=tuple(row["devices"][:DEVICES_SHOWN]),
        note=proposal.note,
        patch=patch,
    )


def _devices(messages: Sequence[bytes], contract: Contract) -> list[str]:
    """Who sent these, where that can be read and may be told."""
    device = contract.field(contract.device)
    if device.privacy or not device.in_message:
        return []
    found = {member(message, device.path) for message in messages}
    return sorted(name for name in found if isinstance(name, str))


def _named_in(rejects: Rejects, until: datetime) -> Proposal:
    """A field for what messages are rejected for: the most frequent, where there are several."""
    if rejects.contract.explode is not None:
        return Proposal('of the message, or with `of = "reading"`: give it a column by hand')
    found = (re.search(r"the contract has no (.+)$", detail) for detail in rejects.details)
    paths = Counter(tuple(match.group(1).split(".")) for match in found if match)
    if not paths:
        return Proposal("fields that the contract does not name")
    [(path, _)] = paths.most_common(1)
    values = (member(message, path) for message in rejects.messages)
    return _new_field(rejects.contract, path, (one for one in values if one is not None), until)


def source_text(contract: Contract) -> str:
    """The contract's file as it was written, without the digests that were pinned to it."""
    return contract.source.decode().partition(PINNED)[0]


def _new_field(contract: Contract, path: Path, values: Iterable[Any], until: datetime) -> Proposal:
    """A field for an unknown path, as a draft from a sample would have it, but never required."""
    inside = contract.explode is not None and path[0] == dotted(contract.explode.path)
    path = path[1:] if inside else path
    seen = Seen(path)
    for value in values:
        seen.add(value)
    latest = until.timestamp() + AHEAD_SECONDS
    alone = Observed(
        {path: seen}, seen.present + 1, 0, 0, (), None, some_empty=False, latest=latest
    )
    fields, left = guesses(alone)
    if left:
        return Proposal(left[0].why)
    if not fields:
        return Proposal("always null so far")
    [guess] = fields
    guess.of_reading = inside
    taken = {field.name for field in contract.fields}
    if guess.name in taken:
        guess.name = f"new_{guess.name}"
    kinds = ", ".join(seen.kinds)
    proposal = Proposal(
        f"{kinds}; give it a column, or let it stay in _rescued",
        with_lines(source_text(contract), field_lines(guess)),
    )
    return proposal if _reads(proposal.text) else Proposal("it needs a field written by hand")


def _helpful(proposal: Proposal, row: Mapping[str, Any], contract: Contract) -> Proposal:
    """A proposal that is a contract and takes at least some of what was rejected.

    With a list of readings, or lookups, what was set aside cannot be tried by itself.
    """
    if proposal.text is None:
        return proposal
    if not _reads(proposal.text):
        return Proposal(proposal.note)
    if contract.explode is not None or contract.lookups:
        return proposal
    changed = parse_contract(proposal.text.encode(), contract.name)
    arrival = (row["until"] - EPOCH) // MICROSECOND
    taken = applied(changed, row["bodies"], arrival).counts.delivered
    if not taken:
        return Proposal(proposal.note)
    return Proposal(
        f"{proposal.note}; it would take {taken:,} of {len(row['bodies']):,}", proposal.text
    )


def _reads(text: str | None) -> bool:
    try:
        parse_contract((text or "").encode(), "proposal")
    except ContractError:
        return False
    return True


def _path(fullkey: str) -> Path:
    """DuckDB's `$.a."b.c"` as keys."""
    found = re.findall(r'\.(?:"((?:[^"\\]|\\.)*)"|([^."]+))', fullkey)
    return tuple(json.loads(f'"{quoted}"') if quoted else plain for quoted, plain in found)


def _names(contract: Contract) -> dict[str, Any]:
    view = contract.name.replace("-", "_")
    return {
        "view": "records" if view in NAMES else view,
        "name": contract.name,
        "device": contract.device,
        "most": LOOKED_AT_MAX,
    }


_UNKNOWN = r"""
WITH every AS (
    SELECT _arrival, "{device}" AS device, _rescued FROM {view} WHERE _contract = '{name}'
), seen AS (
    SELECT every.*, one.fullkey, one.value FROM every, json_tree(every._rescued) AS one
    WHERE one.type <> 'OBJECT' AND NOT regexp_matches(
        regexp_replace(one.fullkey, '"([^"\\]|\\.)*"', '', 'g'), '\['
    )
), counted AS (
    SELECT fullkey, count(*) AS count, min(_arrival) AS since, max(_arrival) AS until,
        list_sort(list(DISTINCT device)) AS devices,
        list(value::VARCHAR ORDER BY _arrival DESC)[:{most}] AS texts
    FROM seen GROUP BY fullkey
)
SELECT *, (SELECT count(*) FROM every WHERE every._arrival >= counted.since) AS of FROM counted
"""

_REJECTED = """
WITH rejects AS (
    SELECT _arrival, _reason, _field, _detail, _body FROM quarantine WHERE _contract = '{name}'
), counted AS (
    SELECT _reason, _field, count(*) AS count, min(_arrival) AS since, max(_arrival) AS until,
        list(_body ORDER BY _arrival DESC)[:{most}] AS bodies,
        list(_detail ORDER BY _arrival DESC)[:{most}] AS details
    FROM rejects GROUP BY ALL
), arrivals AS (
    SELECT _arrival FROM rejects
    UNION ALL SELECT _arrival FROM {view} WHERE _contract = '{name}'
)
SELECT *, (SELECT count(*) FROM arrivals WHERE arrivals._arrival >= counted.since) AS of
FROM counted
"""
