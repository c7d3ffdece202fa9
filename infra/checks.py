"""The checks of `millrace verify`: each one SQL statement whose rows are what is wrong.

`VIEWS` give every position its fate by law 5, from tables of what the stores say (`infra.tables`
loads them); `CHECKS` look for what contradicts. A row of a check is a name and a detail, and the
name of another finding that explains it, where one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sinks import distinct
from transform.erased import RULE, WHOLE

Kind = Literal["missing", "twice", "conflict", "unexplained"]
FATES = (
    *("delivered", "quarantined", "dropped", "erased"),
    *("parked", "redriven", "waiting", "missing"),
)

POSITION = distinct.POSITION
AT = "concat_ws('/', _stream, _shard, _sequence)"
LINEAGE = f"""_contract, {distinct.ELEMENT}, _raw, _index, _elements, _epoch, _version,
    _generation, _object, _arrival"""
COMMON = f"{LINEAGE}, _digest"
MARK = f"{LINEAGE}, NULL, 'dropped'"
FATE = distinct.worst("verdict")
TABLES = distinct.Tables("landing", "quarantine", "left_out")


def _wrong(which: str, fate: str, differs: str = "") -> str:
    """Attempts whose object is gone, or is not of the size they counted."""
    return f"""
        SELECT execution, '{which}' AS which, {which}_key AS key, {which}_rows AS counted,
            '{fate}' AS fate,
            coalesce('it has ' || rows || ' in ' || bytes || ' bytes', 'there is no such object')
                AS found
        FROM attempts LEFT JOIN objects ON key = {which}_key
        WHERE {which}_key <> '' AND (key IS NULL OR rows <> {which}_rows {differs})
            AND NOT EXISTS (FROM retired r WHERE r.key = {which}_key AND r.rows <= {which}_rows)
    """


VIEWS = {
    # What counts, by law 5, and every row there is.
    "delivered": TABLES.delivered(),
    "set_aside": TABLES.set_aside(),
    "dropped_elements": TABLES.left_out(),
    "every_row": f"""
        SELECT {COMMON}, 'delivered' AS verdict FROM landing
        UNION ALL SELECT {COMMON}, _reason FROM quarantine
        UNION ALL SELECT {MARK} FROM left_out
    """,
    "counted": f"""
        SELECT {COMMON}, 'delivered' AS verdict FROM delivered
        UNION ALL SELECT {COMMON}, _reason FROM set_aside
        UNION ALL SELECT {MARK} FROM dropped_elements
    """,
    # Source records that an attempt reported as done: in its part, and not handed back.
    "done": f"""
        SELECT {POSITION}, _raw, _index, execution, generation AS _generation
        FROM raw_rows JOIN attempts
            ON raw_key = _raw AND _index >= first AND _index < first + received
        WHERE NOT EXISTS (
            FROM handed_back b
            WHERE b.execution = attempts.execution AND _index >= low AND _index < high
        )
    """,
    "settled": f"SELECT DISTINCT {POSITION} FROM done",
    "members": f"""
        SELECT {POSITION}, min(_source) AS _source, min(_raw) AS _raw, min(_sha) AS _sha,
            min(_arrival) AS _arrival
        FROM (
            SELECT {POSITION}, _source, _raw, _sha, _arrival FROM raw_rows
            UNION ALL SELECT {POSITION}, _source, NULL, _sha, _arrival FROM parked_rows
        )
        GROUP BY {POSITION}
    """,
    "pointed": f"""
        SELECT DISTINCT {POSITION}
        FROM (SELECT {POSITION} FROM members UNION SELECT {POSITION} FROM held)
        JOIN pointers USING (_stream, _shard)
        WHERE lpad(_sequence, 128, '0') BETWEEN low AND high
    """,
    # A message that was moved has another id: its body tells it.
    "parked": f"""
        SELECT {POSITION} FROM parked_rows
        UNION SELECT {POSITION} FROM pointed
        UNION SELECT {POSITION} FROM members
            SEMI JOIN (FROM parked_rows WHERE _source = 'sqs') USING (_stream, _sha)
            ANTI JOIN settled USING ({POSITION})
            WHERE _source = 'sqs'
    """,
    "redriven": f"""
        SELECT {POSITION}
        FROM (
            FROM members ANTI JOIN settled USING ({POSITION}) WHERE _source = 'sqs'
        ) AS m
        SEMI JOIN (
            SELECT _stream, _sha, max(_arrival) AS latest
            FROM members SEMI JOIN counted USING ({POSITION}) GROUP BY ALL
        ) AS moved ON moved._stream = m._stream AND moved._sha = m._sha
            AND moved.latest > m._arrival
    """,
    # What nobody has reported as done and its source will bring again.
    "unsettled": f"""
        SELECT {POSITION}, _source FROM members
        ANTI JOIN settled USING ({POSITION})
        ANTI JOIN parked USING ({POSITION})
        ANTI JOIN redriven USING ({POSITION})
    """,
    "waiting": f"""
        SELECT {POSITION}
        FROM unsettled LEFT JOIN (SELECT _stream, _shard, _sequence AS until FROM passed)
            USING (_stream, _shard)
        WHERE _source = 'kinesis'
            AND (until IS NULL OR lpad(_sequence, 128, '0') > lpad(until, 128, '0'))
        UNION
        SELECT {POSITION}
        FROM unsettled JOIN queues USING (_stream)
        WHERE _source = 'sqs'
        QUALIFY count(*) OVER (PARTITION BY _stream) <= messages
    """,
    "fates": f"""
        SELECT {POSITION}, _raw, CASE
            WHEN fate = 'dropped' AND erased THEN 'erased'
            WHEN fate IS NOT NULL THEN fate
            WHEN parked.ok THEN 'parked'
            WHEN redriven.ok THEN 'redriven'
            WHEN waiting.ok THEN 'waiting'
            ELSE 'missing' END AS fate
        FROM members
        LEFT JOIN (
            SELECT {POSITION}, {FATE} AS fate FROM counted GROUP BY ALL
        ) USING ({POSITION})
        LEFT JOIN (
            SELECT {POSITION}, bool_and(_rule = '{RULE}') AS erased
            FROM dropped_elements GROUP BY ALL
        ) USING ({POSITION})
        LEFT JOIN (SELECT *, true AS ok FROM parked) AS parked USING ({POSITION})
        LEFT JOIN (SELECT *, true AS ok FROM redriven) AS redriven USING ({POSITION})
        LEFT JOIN (SELECT *, true AS ok FROM waiting) AS waiting USING ({POSITION})
    """,
    # Hot items: what the counted rows want, and what a debt of repair or the TTL explains.
    # Of layout `latest` a device's newest is wanted, and a newer one stands for it.
    "wanting": f"""
        SELECT DISTINCT _contract, _pk, _sk, {POSITION}, _object, _latest, _expires
        FROM delivered WHERE _hot
    """,
    "wanted": """
        FROM wanting
        QUALIFY NOT _latest OR _sk = max(_sk) OVER (PARTITION BY _contract, _latest, _pk)
    """,
    "absent": f"""
        SELECT _contract, _pk, _sk, {POSITION}, _object FROM wanted
        ANTI JOIN hot_items AS h ON wanted._contract = h._contract AND wanted._pk = h._pk
            AND (wanted._sk = h._sk OR wanted._latest AND wanted._sk < h._sk)
        ANTI JOIN waiting USING ({POSITION})
        WHERE coalesce(_expires > now_micros(), true)
    """,
    # An object's debts explain no more missing items than rows are owed.
    "owed_items": """
        SELECT DISTINCT _contract, _pk, _sk FROM (
            FROM (SELECT DISTINCT _object, rows, _contract, _pk, _sk
                FROM landing JOIN owed USING (_object) SEMI JOIN absent USING (_contract, _pk, _sk))
            QUALIFY count(*) OVER (PARTITION BY _object) <= rows
        )
    """,
    # Objects that are gone or have lost rows, and the records that an attempt had put there. What
    # had gone into which of an attempt's objects, its rules say again.
    "wrong_objects": f"""
        {_wrong("landing", "delivered", "OR bytes <> landing_bytes AND erased = 0")}
        UNION ALL {_wrong("quarantine", "quarantined")}
        UNION ALL {_wrong("dropped", "dropped")}
    """,
    "explained": f"""
        SELECT {POSITION}, max_by(key, (x.fate = w.fate) IS NOT DISTINCT FROM true) AS cause
        FROM done JOIN wrong_objects AS w USING (execution)
        LEFT JOIN (
            SELECT _raw, _index, _generation, {FATE} AS fate FROM expected GROUP BY ALL
        ) AS x USING (_raw, _index, _generation)
        GROUP BY {POSITION}
    """,
    # What each attempt's objects say about the attempt.
    "attempt_rows": f"""
        SELECT execution, _index, {FATE} AS fate, max(back) AS back
        FROM (
            SELECT a.execution, r._index, r.verdict, EXISTS (
                FROM handed_back b
                WHERE b.execution = a.execution AND r._index >= b.low AND r._index < b.high
            ) AS back
            FROM attempts a JOIN (
                SELECT DISTINCT _object, _index, verdict FROM every_row
            ) r ON r._object IN (a.landing_key, a.quarantine_key, a.dropped_key)
        )
        GROUP BY ALL
    """,
    # Source records of an attempt that are erased, or part of them: a mark that is not its own
    # stands for what it had made of them.
    "erased_since": f"""
        SELECT DISTINCT execution, _index
        FROM attempts a JOIN left_out ON _raw = raw_key AND _generation = generation
            AND _index >= first AND _index < first + received
        WHERE _rule = '{RULE}' AND _object <> dropped_key AND NOT EXISTS (
            FROM handed_back b
            WHERE b.execution = a.execution AND _index >= low AND _index < high
        )
    """,
}


@dataclass(frozen=True)
class Check:
    """What is wrong, of which kind, and the SQL that finds it."""

    kind: Kind
    name: str
    sql: str


def _object_of(which: str) -> str:
    return f"""
        SELECT key, concat('attempt ', execution, ' wrote ', counted, ' rows there; ', found)
        FROM wrong_objects WHERE which = '{which}'
    """


CHECKS = (
    Check(
        "missing",
        "record",
        f"""
        SELECT {AT}, concat('in ', _raw, ', and nowhere else',
            coalesce('; attempt ' || execution || ' reported it as done', '')), cause
        FROM fates LEFT JOIN (
            SELECT {POSITION}, min(execution) AS execution FROM done GROUP BY ALL
        ) USING ({POSITION})
        LEFT JOIN explained USING ({POSITION})
        WHERE fate = 'missing'
        """,
    ),
    Check(
        "missing",
        "element",
        f"""
        SELECT {AT}, concat(count(*), ' of its ', max(_elements), ' elements are there'),
            any_value(cause)
        FROM counted ANTI JOIN waiting USING ({POSITION})
        LEFT JOIN explained USING ({POSITION})
        GROUP BY {POSITION} HAVING count(*) < max(_elements)
        """,
    ),
    Check(
        "missing",
        "archive",
        f"""
        SELECT {AT}, 'the stream has it, before its checkpoint; it is neither in raw nor parked'
        FROM held
        ANTI JOIN members USING ({POSITION})
        ANTI JOIN pointed USING ({POSITION})
        """,
    ),
    Check(
        "missing",
        "hot_item",
        f"""
        SELECT concat(_pk, ' ', _sk), concat('wanted by ', {AT}, ' in ', _object,
            '; no open debt of repair explains it')
        FROM absent ANTI JOIN owed_items USING (_contract, _pk, _sk)
        """,
    ),
    Check(
        "twice",
        "verdicts",
        f"""
        SELECT {AT}, concat('element ', _sub, '/', _child, ' is ',
            string_agg(DISTINCT verdict, ' and ' ORDER BY verdict), ' by generation ', _generation)
        FROM every_row GROUP BY {distinct.ELEMENT}, _generation
        HAVING count(DISTINCT verdict) > 1
        """,
    ),
    Check(
        "twice",
        "rows",
        """
        SELECT _object, concat('has ', count(*), ' rows of element ', _sub, '/', _child, ' of ',
            _raw, ' record ', _index)
        FROM every_row GROUP BY _object, _raw, _index, _sub, _child HAVING count(*) > 1
        """,
    ),
    Check(
        "twice",
        "elements",
        f"""
        SELECT {AT}, concat('has ', count(*), ' elements, its rows say ',
            string_agg(DISTINCT _elements, ' and ' ORDER BY _elements))
        FROM (SELECT DISTINCT {distinct.ELEMENT}, _elements, _generation FROM every_row)
        GROUP BY {POSITION}, _generation
        HAVING count(*) > min(_elements)
        """,
    ),
    Check(
        "conflict",
        "record_id",
        f"""
        SELECT _record_id, concat(count(DISTINCT _digest), ' records of other bytes: ',
            string_agg({AT}, ', ' ORDER BY {distinct.EARLIEST}))
        FROM (
            SELECT * FROM delivered
            QUALIFY row_number() OVER (PARTITION BY _contract, _record_id, _digest
                ORDER BY {distinct.EARLIEST}) = 1
        )
        GROUP BY _contract, _record_id HAVING count(DISTINCT _digest) > 1
        """,
    ),
    Check(
        "conflict",
        "bytes",
        f"""
        SELECT {AT}, concat('has other bytes in ',
            string_agg(DISTINCT _raw, ' than in ' ORDER BY _raw))
        FROM (
            SELECT {POSITION}, _sha, _raw FROM raw_rows
            UNION ALL SELECT {POSITION}, _sha, _where FROM parked_rows
            UNION ALL SELECT {POSITION}, _sha, 'the stream' FROM held
        )
        GROUP BY {POSITION} HAVING count(DISTINCT _sha) > 1
        """,
    ),
    Check(
        "unexplained",
        "object",
        "SELECT key, 'its bytes are not those it is named by' FROM objects WHERE NOT sound",
    ),
    Check(
        "unexplained",
        "origin",
        """
        SELECT e._object, concat(count(*), ' rows of ', e._raw,
            CASE WHEN e._raw IN (SELECT key FROM objects)
                THEN ', which has no such records' ELSE ', which is not there' END,
            '; the first is ', min(concat_ws('/', e._stream, e._shard, e._sequence)))
        FROM every_row e LEFT JOIN raw_rows r ON r._raw = e._raw AND r._index = e._index
            AND r._stream = e._stream AND r._shard = e._shard AND r._sequence = e._sequence
            AND r._arrival = e._arrival
        WHERE r._raw IS NULL
        GROUP BY e._object, e._raw
        """,
    ),
    Check(
        "unexplained",
        "verdict",
        f"""
        SELECT {AT}, concat('element ', e._sub, '/', e._child, ' is ', e.verdict, ' in ', e._object,
            ', its rules say ', coalesce(x.verdict, 'there is no such element'),
            CASE WHEN x.verdict = e.verdict THEN ' with other bytes' ELSE '' END)
        FROM (FROM every_row SEMI JOIN judged USING (_generation) SEMI JOIN raw_rows
            USING (_raw, _index) ANTI JOIN erased USING (_raw, _index, _sub)
            ANTI JOIN (FROM erased WHERE _sub < 0) USING (_raw, _index)) e
        LEFT JOIN expected x ON x._raw = e._raw AND x._index = e._index AND x._sub = e._sub
            AND x._child = e._child AND x._generation = e._generation
        WHERE x.verdict IS DISTINCT FROM e.verdict OR x._digest IS DISTINCT FROM e._digest
        """,
    ),
    Check(
        "unexplained",
        "erasure",
        f"""
        SELECT {AT}, concat('element ', e._sub, '/', e._child, ' is erased in ', e._raw,
            ', and still ', e.verdict, ' in ', e._object, '; run the erasure again')
        FROM every_row e SEMI JOIN erased x
            ON x._raw = e._raw AND x._index = e._index AND x._sub IN (e._sub, {WHOLE})
        WHERE e.verdict <> 'dropped'
        """,
    ),
    Check(
        "unexplained",
        "ledger",
        f"""
        SELECT min(_raw), concat(count(*), ' of its records have a fate that no attempt in the ',
            'ledger reported, the first ', min({AT}), '; their rows are in ', min(objects))
        FROM fates JOIN (
            SELECT {POSITION}, string_agg(DISTINCT _object, ', ' ORDER BY _object) AS objects
            FROM counted
            GROUP BY ALL
        ) USING ({POSITION})
        ANTI JOIN settled USING ({POSITION})
        ANTI JOIN waiting USING ({POSITION})
        ANTI JOIN parked USING ({POSITION})
        GROUP BY _raw
        """,
    ),
    *(
        Check("unexplained", f"{which}_object", _object_of(which))
        for which in ("landing", "quarantine", "dropped")
    ),
    Check(
        "unexplained",
        "raw_object",
        """
        SELECT raw_key, concat('attempt ', execution, ' was at records ', first, ' to ',
            first + received, '; ', coalesce('it has ' || rows, 'there is no such object'))
        FROM attempts LEFT JOIN objects ON key = raw_key
        WHERE key IS NULL OR rows < first + received
        """,
    ),
    Check(
        "unexplained",
        "counts",
        """
        SELECT execution, concat('says delivered ', delivered, ', dropped ', dropped,
            ', quarantined ', quarantined, ' of ', received, '; its objects have ',
            good, ', ', left_out, ' and ', bad, ', handed back are ', back, ', erased ', gone)
        FROM (
            SELECT a.execution, any_value(a.delivered) AS delivered,
                any_value(a.dropped) AS dropped,
                any_value(a.quarantined) AS quarantined, any_value(a.received) AS received,
                count(*) FILTER (r.fate = 'delivered' AND NOT r.back) AS good,
                count(*) FILTER (r.fate = 'dropped' AND NOT r.back) AS left_out,
                count(*) FILTER (r.fate = 'quarantined' AND NOT r.back) AS bad,
                any_value(coalesce(b.back, 0)) AS back,
                any_value(coalesce(e.gone, 0)) AS gone
            FROM attempts a
            LEFT JOIN (FROM attempt_rows ANTI JOIN erased_since USING (execution, _index)) r
                USING (execution)
            LEFT JOIN (
                SELECT execution, count(*) AS gone FROM erased_since GROUP BY ALL
            ) e USING (execution)
            LEFT JOIN (
                SELECT execution, sum(high - low) AS back FROM handed_back GROUP BY ALL
            ) b USING (execution)
            WHERE (a.landing_key = '' OR a.landing_key IN (SELECT key FROM objects))
                AND (a.quarantine_key = '' OR a.quarantine_key IN (SELECT key FROM objects))
                AND (a.dropped_key = '' OR a.dropped_key IN (SELECT key FROM objects))
            GROUP BY a.execution
        )
        WHERE delivered < good OR dropped < left_out OR quarantined < bad
            OR delivered + dropped + quarantined <> good + left_out + bad + gone
            OR delivered + dropped + quarantined + back <> received
        """,
    ),
    Check(
        "unexplained",
        "hot_counts",
        """
        SELECT execution, concat('says ', hot_written, ' hot items written and ', repair_rows,
            ' owed, of ', hot_rows)
        FROM attempts WHERE outcome = 'done' AND hot_written + repair_rows <> hot_rows
        """,
    ),
    Check(
        "unexplained",
        "hot_item",
        f"""
        SELECT concat(_pk, ' ', _sk), CASE WHEN made IS NULL THEN 'no record wants it'
            ELSE concat('only rows that do not count want it, in ', made) END
        FROM hot_items
        ANTI JOIN wanting USING (_contract, _pk, _sk)
        LEFT JOIN (
            SELECT _contract, _pk, _sk, min(_object) AS made, bool_or(coming) AS coming
            FROM landing LEFT JOIN (SELECT *, true AS coming FROM waiting) USING ({POSITION})
            WHERE _hot GROUP BY ALL
        ) USING (_contract, _pk, _sk)
        WHERE coming IS NULL
        """,
    ),
)
