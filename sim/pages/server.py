"""A small web server on this machine that shows runs while they are under way. It reads their folder, and no more."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from compiler.errors import EieError, InputError
from sim.pages.page import environment, resource
from sim.pages.progress import state

__all__ = ["LOOPBACK", "Server"]

LOOPBACK = "127.0.0.1"


class Server(ThreadingHTTPServer):
    """Serves the page and, as JSON, what it shows.

    Parameters
    ----------
    folder : of a run, or with runs in it; may be made later.
    host, port : where; port 0 takes one that is free. Requests that name another host than this one are refused, so
        that no page of elsewhere reads along; not if `host` is an outer address.

    Raises
    ------
    InputError
        The port is taken, or `host` is no address of this machine.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: Path, host: str = LOOPBACK, port: int = 0) -> None:
        self.folder = folder
        self._drawing = threading.Lock()  # matplotlib draws one figure at a time
        self._charts: dict[str, tuple[str, str]] = {}
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise InputError(
                f"port {port} of {host} cannot be listened at ({error.strerror}); give another --port"
            ) from None
        self.names = {host, "localhost", LOOPBACK} if host in (LOOPBACK, "localhost") else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that is closed while it is answered is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def now(self) -> dict[str, Any]:
        """What `sim.pages.progress.state` says, with a chart of each training that has an epoch.

        The last chart of each run is kept, and is drawn anew only when there is another epoch.
        """
        try:
            found = state(self.folder)
        except (EieError, OSError) as error:
            return {"error": str(error), "folder": self.folder.name, "runs": []}
        with self._drawing:
            kept, self._charts = self._charts, {}
            for run in found["runs"]:
                path, stages = run["path"], [stage for stage in run["stages"] if stage["history"]]
                text = json.dumps(stages, allow_nan=False)
                before, chart = kept.get(path, ("[]", ""))
                self._charts[path] = text, chart if text == before else _chart(stages, path)
                run["chart"] = self._charts[path][1]
        return found

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "eie"
    sys_version = ""

    def do_GET(self) -> None:
        """The page at /, its data at /state."""
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if self.server.names is not None and host not in self.server.names:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"only by the name of this machine\n")
            return
        match urlsplit(self.path).path:
            case "/":
                self._send(HTTPStatus.OK, "text/html", _page().encode())
            case "/state":
                content = json.dumps(self.server.now(), allow_nan=False).encode()
                self._send(HTTPStatus.OK, "application/json", content)
            case _:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is / and /state\n")

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page asks every second."""


@lru_cache(1)
def _page() -> str:
    script = resource("watch.js")
    return environment().from_string(resource("watch.html")).render({"style": resource("page.css"), "script": script})


def _chart(stages: list[dict[str, Any]], path: str) -> str:
    try:
        from sim.pages.charts import history
    except ImportError:  # without matplotlib there are the numbers
        return ""
    return history(stages, f"history-{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}")
