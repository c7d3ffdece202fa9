"""The checks of `millrace verify` that are about the lake, and of what they are asked.

A lake must be what law 5 and identity make of the objects it has taken in: every row of theirs that
counts is in a file, the earliest of an identity as the one that stands, and no other row is.
"""

from __future__ import annotations

from infra.checks import AT, Check
from sinks import distinct

PLACE = f"{distinct.ELEMENT}, _generation"
LAKE = distinct.Tables("taken_landing", "taken_quarantine", "taken_left_out")

VIEWS = {
    # Landing objects that were deleted as the lake has their rows.
    "retired": """
        SELECT key, rows FROM taken ANTI JOIN objects USING (key) WHERE key LIKE 'landing/%'
    """,
    "lake_objects": "SELECT key AS _object FROM taken UNION SELECT key FROM lake_files",
    **{
        f"taken_{name}": f"FROM {name} SEMI JOIN lake_objects USING (_object)"
        for name in ("landing", "quarantine", "left_out")
    },
    "lake_delivered": LAKE.delivered(),
    "lake_records": f"""
        FROM lake_delivered QUALIFY row_number() OVER (
            PARTITION BY _contract, _record_id, _digest ORDER BY {distinct.EARLIEST}) = 1
    """,
    "lake_standing": """
        FROM lake_rows SEMI JOIN (FROM lake_files WHERE NOT is_repeat) ON _object = key
    """,
    "lake_counted": """
        SELECT _contract AS contract, _hour AS hour, sum(n)::BIGINT AS rows, count(*) AS ids,
            count(*) FILTER (n > 1) AS conflicts
        FROM (
            SELECT _contract, _hour, _record_id, count(*) AS n FROM lake_standing GROUP BY ALL
        )
        GROUP BY ALL
    """,
}

CHECKS = (
    Check(
        "missing",
        "lake",
        f"""
        SELECT {AT}, concat('element ', _sub, '/', _child, ' was taken in from ', _object,
            ', and no file of the lake has it')
        FROM lake_delivered ANTI JOIN lake_rows USING ({PLACE})
        """,
    ),
    Check(
        "twice",
        "lake",
        """
        SELECT _record_id, concat('stands ', count(*), ' times in the lake, in ',
            string_agg(DISTINCT _object, ', ' ORDER BY _object))
        FROM lake_standing GROUP BY _contract, _record_id, _digest HAVING count(*) > 1
        """,
    ),
    Check(
        "unexplained",
        "lake_row",
        f"""
        SELECT {AT}, concat('element ', _sub, '/', _child, ' is in ', _object,
            '; no object that was taken in has it as a row that counts')
        FROM lake_rows ANTI JOIN lake_delivered USING ({PLACE})
        """,
    ),
    Check(
        "unexplained",
        "lake_standing",
        f"""
        SELECT {AT}, concat('element ', _sub, '/', _child, ' stands in ', _object,
            '; an earlier one of equal identity should')
        FROM lake_standing SEMI JOIN lake_delivered USING ({PLACE})
        ANTI JOIN lake_records USING ({PLACE})
        """,
    ),
    Check(
        "unexplained",
        "lake_file",
        """
        SELECT key, CASE
            WHEN held_bytes IS NULL THEN 'the manifest names it; there is no such object'
            WHEN held_rows IS NULL THEN 'it is no Parquet file any more'
            WHEN NOT sound THEN 'its bytes are not those it is named by'
            ELSE concat('the manifest says ', rows, ' rows in ', bytes, ' bytes; it has ',
                held_rows, ' in ', held_bytes) END
        FROM lake_files
        WHERE held_rows IS NULL OR NOT sound OR held_rows <> rows OR held_bytes <> bytes
        """,
    ),
    Check(
        "unexplained",
        "partition",
        """
        SELECT concat_ws('/', contract, strftime(make_timestamp(hour * 3600000000),
                '%Y-%m-%d/%H')),
            concat('the manifest says ', p.rows, ' rows, ', p.ids, ' ids, ', p.conflicts,
                ' in conflict and digest ', digest, '; its files have ', coalesce(c.rows, 0), ', ',
                coalesce(c.ids, 0), ', ', coalesce(c.conflicts, 0), ' and ', held_digest)
        FROM lake_partitions p FULL JOIN lake_counted c USING (contract, hour)
        WHERE (p.rows, p.ids, p.conflicts, digest)
            IS DISTINCT FROM (c.rows, c.ids, c.conflicts, held_digest)
        """,
    ),
    Check(
        "unexplained",
        "taken",
        """
        SELECT key, concat('the lake has taken in ', t.rows, ' rows of it; ',
            coalesce('it has ' || o.rows, 'there is no such object'))
        FROM taken t LEFT JOIN objects o USING (key)
        WHERE CASE WHEN key LIKE 'landing/%' THEN t.rows NOT BETWEEN o.rows - o.erased AND o.rows
            ELSE o.rows IS NULL END
        """,
    ),
)
