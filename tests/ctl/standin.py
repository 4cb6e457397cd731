"""
A stand-in for the daemon: it answers as it is told and notes what was asked.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import frozen


@frozen(slots=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    fields: dict[str, Any]
    authorization: str


class StandIn:
    """
    An admin API on a loopback port.

    @ivar asked: the requests so far.
    @ivar answers: path -> the answers to come, the last one again and again:
        HTTP status, message, data.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, list[tuple[int, str, Any]]] = {}
        self.headers: dict[str, str] = {}
        self.raw: bytes | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer._note(self, {})
                self._reply()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                if "json" in self.headers["Content-Type"]:
                    outer._note(self, json.loads(body))
                else:
                    outer._note(self, {name: v[-1] for name, v in parse_qs(body, True).items()})
                self._reply()

            def _reply(self) -> None:
                status, text = outer._answer(urlsplit(self.path).path)
                self.send_response(status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def _note(self, request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        parts = urlsplit(request.path)
        query = {
            name: values if len(values) > 1 else values[0]
            for name, values in parse_qs(parts.query, True).items()
        }
        authorization = request.headers["Authorization"] or ""
        method = request.command
        self.asked.append(Asked(method, parts.path, {**query, **body}, authorization))

    def _answer(self, path: str) -> tuple[int, bytes]:
        if self.raw is not None:
            return 200, self.raw
        coming = self.answers.get(path, [(404, f"Unknown path: {path}", None)])
        status, message, data = coming.pop(0) if len(coming) > 1 else coming[0]
        envelope = {"code": status, "message": message, "data": data}
        if path == "/upstream/health":
            envelope["status"] = "healthy" if data and data["active_servers"] else "unhealthy"
        return status, json.dumps(envelope, separators=(",", ":")).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
