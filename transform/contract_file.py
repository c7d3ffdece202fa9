"""Reading contracts: a TOML file to a `Contract`, or a `ContractError` that says what to mend.

A broken file's error names file, line and column, key, what is wrong and what is allowed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from transform.contract import Contract, Field, Lookup
from transform.contract_examples import read_examples
from transform.contract_fields import read_fields
from transform.contract_rules import (
    Files,
    read_choose,
    read_envelope,
    read_explode,
    read_filters,
    read_hot,
    read_layout,
    read_lookups,
    read_sample,
    read_schema,
    read_unknown,
)
from transform.toml_places import Places
from transform.toml_reader import Mistake, Reader, one_of

SHIPPED = FilePath(__file__).parent / "contracts"

BODY_MAX_BYTES = 262_144  # a record's item must stay under DynamoDB's 400 KB with its names added
VERSION_MAX = 9_999  # with the code's version behind it, under the 15 digits JSONata keeps
CONTRACT_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")

_TOML_POSITION = re.compile(r" \(at line (\d+), column (\d+)\)$")  # tomllib's messages end so

DEFAULT_BODY_BYTES = 65_536
DEFAULT_FUTURE_SECONDS = 300
YEAR_SECONDS = 31_536_000


class ContractError(ValueError):
    """A contract that cannot be used: `file:line:column: key: what is wrong; what is allowed`."""


def load_contract(name_or_path: str) -> Contract:
    """A shipped contract by its name, or any by its file's path. Raises `ContractError`.

    Its lookups are read from the same folder.
    """
    path = contract_path(name_or_path)
    return parse_contract(read_file(path), str(path), files_beside(path))


def files_beside(path: FilePath) -> Files:
    """Lookups as files in a contract's own folder, by their digest or by their name."""

    def read(lookup: Lookup) -> bytes:
        pinned = path.parent / (lookup.digest or lookup.file)
        return (pinned if pinned.exists() else path.parent / lookup.file).read_bytes()

    return read


def contract_path(name_or_path: str) -> FilePath:
    """Where a contract's file is. Raises `ContractError`.

    A name is looked up first; whatever holds a `/` or ends in `.toml` is a path.
    """
    shipped = sorted(path.stem for path in SHIPPED.glob("*.toml"))
    if name_or_path in shipped:
        return SHIPPED / f"{name_or_path}.toml"
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return FilePath(name_or_path)
    raise ContractError(
        f"no contract is called {name_or_path!r}; shipped are {', '.join(shipped)}, "
        "or give the path of a .toml file"
    )


def read_file(path: FilePath) -> bytes:
    """A contract file's bytes. Raises `ContractError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}") from error


def parse_contract(data: bytes, file: str, files: Files | None = None) -> Contract:
    """The contract in a TOML document; `file` is only for messages. Raises `ContractError`.

    `files` reads its lookups. Without it they are not loaded: such a contract reads rows, and makes
    none.
    """
    document = parse_document(data, file)
    try:
        return contract_of(document, data, files)
    except Mistake as mistake:
        line, column = Places.of(data.decode()).position(mistake.at)
        raise ContractError(f"{file}:{line}:{column}: {mistake}") from None


def parse_document(data: bytes, file: str) -> dict[str, Any]:
    """A TOML document as plain values. Raises `ContractError`, which says where it is broken."""
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        told = str(error)
        where = _TOML_POSITION.search(told)
        place = ":" + ":".join(where.groups()) if where else ""
        what = told[: where.start()] if where else told
        raise ContractError(f"{file}{place}: not a TOML document: {what}") from error


def contract_of(document: dict[str, Any], data: bytes, files: Files | None = None) -> Contract:
    """The contract in a document that came from `data`. Raises its first `Mistake`."""
    pinned = document.get("pinned")
    pinned = pinned if isinstance(pinned, dict) else {}
    root = Reader((), "", {key: value for key, value in document.items() if value is not pinned})
    name = root.text("name", CONTRACT_NAME, "lower-case letters, digits and -, at most 40")
    version = root.integer("version", 1, VERSION_MAX, default=1)
    fields = read_fields(root)
    identity = root.table("identity", required=True)
    device, event_time, record_id = _identity(identity, fields)
    identified = tuple(dict.fromkeys((device, event_time, *record_id)))
    sequence, boot = _counts(identity, fields)
    fields = [replace(f, required=f.required or f.name in identified) for f in fields]
    types = {f.name: f.type for f in fields}
    lookups = read_lookups(root, fields, files, pinned)
    limits, hot = root.table("limits"), root.table("hot")
    ttl_seconds, hot_when, hot_fields = read_hot(hot, fields)
    lateness = limits.integer("max_lateness_seconds", 0, 100 * YEAR_SECONDS, default=-1)
    contract = Contract(
        name=name,
        version=version,
        description=root.text("description", default=""),
        fields=tuple(fields),
        device=device,
        event_time=event_time,
        record_id=record_id,
        max_body_bytes=limits.integer(
            "max_body_bytes", 1, BODY_MAX_BYTES, default=DEFAULT_BODY_BYTES
        ),
        max_future_seconds=limits.integer(
            "max_future_seconds", 0, YEAR_SECONDS, default=DEFAULT_FUTURE_SECONDS
        ),
        hot_ttl_seconds=ttl_seconds,
        source=_pinned(data, lookups),
        max_lateness_seconds=None if lateness < 0 else lateness,
        unknown=read_unknown(root),
        envelope=read_envelope(root),
        schema=read_schema(root),
        choose=read_choose(root, fields, identified),
        explode=read_explode(root, fields),
        lookups=lookups,
        filters=read_filters(root, types),
        sample=read_sample(root),
        hot_when=hot_when,
        hot_fields=hot_fields,
        hot_layout=read_layout(hot),
        sequence=sequence,
        boot=boot,
        examples=read_examples(root, fields),
    )
    for reader in (limits, hot, identity, root):
        reader.finish()
    return contract


def _identity(identity: Reader, fields: Sequence[Field]) -> tuple[str, str, tuple[str, ...]]:
    """The device's field, event time's, and those that make two records the same."""
    by_name = {field.name: field for field in fields}
    device = identity.reference("device", by_name, "string")
    event_time = identity.reference("event_time", by_name, "timestamp")
    record_id = _record_id(identity, by_name, device, event_time)
    for number, field in enumerate(fields):
        if field.name not in {device, event_time, *record_id}:
            continue
        for key, is_set in (
            ("default", field.default is not None),
            ("privacy", field.privacy == "redact"),
        ):
            if is_set:
                at = ("field", number, key)
                wrong = (
                    f"an identity field takes no {key}"
                    if key == "default"
                    else "identity is not redacted"
                )
                right = (
                    "remove `default` from this field" if key == "default" else 'privacy = "hash"'
                )
                raise Mistake(at, f"identity: {field.name}", wrong, right)
    return device, event_time, record_id


def _counts(identity: Reader, fields: Sequence[Field]) -> tuple[str, str]:
    """The field that counts a device's messages, and the one that tells its boots apart."""
    identity.may_have("sequence", "boot")
    by_name = {f.name: f for f in fields if f.privacy != "redact"}
    if "sequence" not in identity.table_:
        if "boot" in identity.table_:
            raise identity.error("boot", "there is no `sequence` for it", "a `sequence` beside it")
        return "", ""
    sequence = identity.reference("sequence", by_name, "int64")
    if "boot" not in identity.table_:
        return sequence, ""
    boot = identity.text("boot", allowed="the name of a field")
    if boot not in by_name or by_name[boot].type == "float64" or boot == sequence:
        fitting = [f.name for f in by_name.values() if f.type != "float64" and f.name != sequence]
        raise identity.error("boot", f"{boot!r} tells no boots apart", one_of(fitting))
    return sequence, boot


def _record_id(
    identity: Reader, by_name: Mapping[str, Field], device: str, event_time: str
) -> tuple[str, ...]:
    names = identity.take("record_id", list, "a list of field names", default=None)
    if names is None:
        return ()
    if not names:
        raise identity.error(
            "record_id", "the list is empty", "field names, or no list for identity by position"
        )
    for name in names:
        if not isinstance(name, str) or name not in by_name:
            raise identity.error("record_id", f"no field is called {name!r}", one_of(by_name))
        if by_name[name].type == "float64":
            raise identity.error(
                "record_id", f"{name!r} is a float64", "use string, int64, bool or timestamp fields"
            )
    return tuple(dict.fromkeys((device, event_time, *names)))


def _pinned(data: bytes, lookups: Sequence[Lookup]) -> bytes:
    """The file and the digests of what it was read with: together they are the rules."""
    if not lookups or b"\n[pinned]\n" in data:
        return data
    lines = [f'{lookup.name} = "{lookup.digest}"' for lookup in lookups]
    return data.rstrip() + "\n".join(["\n\n[pinned]", *lines, ""]).encode()
