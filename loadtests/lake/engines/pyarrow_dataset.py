"""pyarrow: a dataset of a list of files, filtered as it is read."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from question import COLUMNS, Question, Sums, serve

THOUSAND = pa.scalar(1_000.0)


class PyArrow:
    """`Engine` by pyarrow."""

    def __init__(self) -> None:
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)

    def totals(self, question: Question) -> list[tuple[str, Sums]]:
        where = None
        if question.span:
            since, until = (pa.scalar(at, pa.timestamp("us", tz="UTC")) for at in question.span)
            where = (ds.field("event_time") >= since) & (ds.field("event_time") < until)
        table = _dataset(question).to_table(["status", *COLUMNS[1:]], filter=where)
        table = pa.table(
            {
                "status": table["status"],
                "sequence": table["sequence"],
                "temperature": _thousandths(table["temperature"]),
                "pressure": _thousandths(table["pressure"]),
            }
        )
        wanted = [("sequence", "count"), ("sequence", "sum"), ("temperature", "sum")]
        wanted += [("pressure", "count"), ("pressure", "sum")]
        found = table.group_by("status").aggregate(wanted)
        columns = [found[f"{name}_{how}"].to_pylist() for name, how in wanted]
        sums = [_whole(row) for row in zip(*columns, strict=True)]
        return list(zip(found["status"].to_pylist(), sums, strict=True))

    def history(self, question: Question) -> pa.Table:
        where = ds.field("device_id") == question.device
        found = _dataset(question).to_table(list(COLUMNS), filter=where)
        return found.sort_by("event_time")

    def added(self, history: pa.Table) -> Sums:
        temperature, pressure = map(_thousandths, (history["temperature"], history["pressure"]))
        sums = [pc.sum(one).as_py() for one in (history["sequence"], temperature, pressure)]
        have = len(pressure) - pressure.null_count
        return _whole([history.num_rows, sums[0], sums[1], have, sums[2]])


def _dataset(question: Question) -> ds.Dataset:
    return ds.dataset(question.files, pq.read_schema(question.schema), format="parquet")


def _thousandths(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.round(pc.multiply(values, THOUSAND)).cast(pa.int64())


def _whole(sums: Iterable[int | None]) -> Sums:
    rows, sequence, temperature, pressures, pressure = (one or 0 for one in sums)
    return rows, sequence, temperature, pressures, pressure


if __name__ == "__main__":
    serve(PyArrow())
