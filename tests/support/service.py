"""A small HTTP server with the answers of a service, for tests of its clients."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
from support.servers import LIMIT_S


def arrow_stream(*scores: list[float]) -> bytes:
    """Return a stream with a record batch for each list."""
    schema, out = pa.schema({"entry": pa.int64(), "score": pa.float32()}), io.BytesIO()
    with pa.ipc.new_stream(out, schema) as writer:
        for values in scores:
            columns = [pa.array(range(len(values)), pa.int64()), pa.array(values, pa.float32())]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return out.getvalue()


class Service(ThreadingHTTPServer):
    """A service of tests. Its logs have one line and continue until it is closed; its predictions are runs that fail.

    answers: status and body of further paths, the next of each list until the last one. requests: method, path, headers
    and body of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.closed, self.run_failed = threading.Event(), threading.Event()
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.requests.append((self.command, self.path, headers, body))
                if answers := service.answers.get(path):
                    self.answer(*(answers.pop(0) if len(answers) > 1 else answers[0]))
                elif path == "/v1/runs/long-1/log":
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(b"a line\n")
                    service.closed.wait(LIMIT_S)
                elif path == "/v1/models":
                    self.answer(200, {"models": []})
                elif self.command == "POST":
                    self.answer(202, {"run": "scores-1"})
                else:
                    state = "failed" if service.run_failed.is_set() else "unfinished"
                    self.answer(200, {"run": "scores-1", "state": state, "error": "no such branch"})

            do_POST = do_PUT = do_DELETE = do_GET

            def answer(self, status: int, content: Any) -> None:
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"
