"""The benchmark of the producer measures every way it names."""

import re

from loadtests.bench import producer as bench


def test_the_benchmark_runs(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench", "--records", "500", "--rounds", "1"])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(bench.WAYS) + 1
    assert [line[:36].strip() for line in lines[1:-1]] == list(bench.WAYS)
    assert re.fullmatch(r"import boto3 -?\d+ ms, and ingest.producer -?\d+ ms more", lines[-1])
