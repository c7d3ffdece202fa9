"""A gateway process that is killed in the middle of spilling, against a server on loopback."""

from __future__ import annotations

import base64
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.test_producer import opened

ROOT = Path(__file__).parent.parent


class Server:
    """PutRecords over HTTP. `away` closes connections; `lossy` takes records and closes a third."""

    def __init__(self):
        self.taken: list[bytes] = []
        self.away = self.lossy = False
        self.lock = threading.Lock()
        self.rolls = random.Random(1)

    def answer(self, asked):
        """The answer to a request, or None for none."""
        with self.lock:
            if self.away:
                return None
            answers = []
            for record in asked["Records"]:
                if self.rolls.random() < 0.1:
                    answers.append({"ErrorCode": "ProvisionedThroughputExceededException"})
                    continue
                answers.append({"ShardId": "s-0", "SequenceNumber": str(len(self.taken))})
                self.taken += opened(base64.b64decode(record["Data"]))
            lost = self.lossy and self.rolls.random() < 0.3
            return None if lost else {"Records": answers}


@contextmanager
def listening(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = server.answer(asked)
            if answer is None:
                self.close_connection = True
                return
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def gateway(url, spill, first):
    command = [sys.executable, "-m", "tests.gateway", url, str(spill), "always", str(first)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def killed_after(process, lines):
    """Kill it once it has said so many numbers; all that it said."""
    said = list(itertools.islice(process.stdout, lines))
    process.kill()
    said += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    return [int(line) for line in said if line.endswith(b"\n")]


AWAY = {"away": (1, 1, 1), "lossy": (0, 0, 0), "away and back": (1, 0, 1)}


@pytest.mark.parametrize("network", AWAY)
def test_what_was_accepted_outlives_kills(tmp_path, network):
    server = Server()
    accepted: list[int] = []
    with listening(server) as url:
        for life in range(3):
            server.away = network.startswith("away") and not (
                network.endswith("back") and life == 1
            )
            server.lossy = network == "lossy"
            process = gateway(url, tmp_path, 1_000_000 * life)
            accepted += killed_after(process, 3_000 + 1_777 * life)
        server.away = server.lossy = False
        time.sleep(0.1)
        drain = gateway(url, tmp_path, "drain")
        assert drain.wait(60) == 0
        drain.stdout.close()
    assert len(accepted) > 10_000
    first: dict[int, int] = {}
    for place, body in enumerate(server.taken):
        number = int(body.rstrip(b"."))
        assert len(body) == len(str(number)) + number % 200
        first.setdefault(number, place)
    assert set(accepted) <= set(first)
    # At most what was being put when it was killed was not said to be accepted.
    assert len(set(first) - set(accepted)) <= 3
    places = [first[number] for number in accepted]
    assert places == sorted(places)  # in the order in which they were put, over all lives
    assert list(tmp_path.glob("*.segment")) == []
