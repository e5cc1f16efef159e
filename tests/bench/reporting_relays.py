"""Stands in for relays that publish 10 rows/s each: answers GET /status on 127.0.0.1:9090.

The numbers change with each answer, as they do under steady traffic: none or a few rows are on
their way, and the rate is about 10 records/s.
"""

import json
import random
import sys
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def report() -> dict:
    now = datetime.now(timezone.utc)
    rows = random.choice([0, 0, 1, 2])
    backlog = {"rows": rows, "capped": False, "measuredAt": now.isoformat()}
    if rows:
        written = now - timedelta(milliseconds=random.randrange(600))
        backlog["oldestAt"] = written.isoformat()
    return {
        "instance": "7d6f",
        "version": "0.1.0",
        "schemaVersion": 12,
        "lanes": 64,
        "backlog": backlog,
        "parkedKeys": 0,
        "parkedTopics": 0,
        "deadLetters": 0,
        "publishedPerSecond": random.uniform(9.0, 11.0),
        "breaker": {"state": "Closed", "since": "2026-01-01T00:00:00Z"},
        "problems": [],
    }


class Status(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(report()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    Server((address, 9090), Status).serve_forever()
