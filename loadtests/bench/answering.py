"""A PutRecords and PutRecord endpoint on loopback that takes everything and keeps nothing.

It prints its port. What is measured against it is the client, not an emulator's store.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

ANSWER = {"ShardId": "shardId-000000000000", "SequenceNumber": "4" * 56}


class Handler(BaseHTTPRequestHandler):
    """Takes everything."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        asked = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        records = asked.get("Records")
        answer = ANSWER if records is None else {"Records": [ANSWER] * len(records)}
        body = orjson.dumps(answer)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
