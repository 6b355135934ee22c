"""Metrics of an XRootD cache for Prometheus: `python -m hepfaas.platform.cache_metrics 9931 9932`.

Receives the reports of the g-stream, JSON by UDP, at the first port (of 127.0.0.1; xrootd.cfg: xrootd.mongstream pfc),
and answers GET /metrics at the second. Only the standard library: it runs beside the cache in the image of any
function.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MOST_REPORT_BYTES = 65_536
SOURCES = {"disk": "b_hit", "origin": "b_miss", "past": "b_bypass"}
TEXT = """\
# HELP xrootd_cache_bytes_total Bytes that files gave until they were closed: from the cache's disk, fetched from the \
origin into it, and past it.
# TYPE xrootd_cache_bytes_total counter
{bytes}
# HELP xrootd_cache_files_closed_total Files that were closed.
# TYPE xrootd_cache_files_closed_total counter
xrootd_cache_files_closed_total {files}
# HELP xrootd_cache_checksum_errors_total Blocks that came with another checksum than they should have.
# TYPE xrootd_cache_checksum_errors_total counter
xrootd_cache_checksum_errors_total {errors}
"""


class Counts:
    """Sums over all reports. Threads may share it."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, report: bytes) -> None:
        """Add one datagram: a header line, and a line for each event. Anything else is ignored."""
        events = [event for line in report.rstrip(b"\0").splitlines() if (event := _event(line))]
        with self._lock:
            for event in events:
                self._sums["files"] += 1
                for name in (*SOURCES.values(), "n_cks_errs"):
                    self._sums[name] += int(event.get(name, 0))

    def text(self) -> str:
        """Return the metrics in Prometheus's text format."""
        with self._lock:
            sums = Counter(self._sums)
        lines = [f'xrootd_cache_bytes_total{{source="{name}"}} {sums[key]}' for name, key in SOURCES.items()]
        return TEXT.format(bytes="\n".join(lines), files=sums["files"], errors=sums["n_cks_errs"])


def serve(udp_port: int, http_port: int) -> None:
    """Receive reports and answer requests until the process ends."""
    counts = Counts()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = counts.text().encode() if self.path == "/metrics" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    http = ThreadingHTTPServer(("", http_port), Answer)
    with http, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reports:
        reports.bind(("127.0.0.1", udp_port))
        threading.Thread(target=http.serve_forever, daemon=True).start()
        while True:
            counts.add(reports.recv(MOST_REPORT_BYTES))


def _event(line: bytes) -> dict[str, Any] | None:
    """Return the event of a file that was closed, None for any other line."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.get("event") == "file_close" else None


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
