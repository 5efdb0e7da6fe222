"""The daemon's window: `/metrics`, `/livez` and `/readyz` over HTTP.

Meant for one scraper and a few probes. A slow or silent client may cost a thread for some seconds and no more: requests
are bounded in number and in time, and filing goes on whatever happens here.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import structlog

from pigeonholed.metrics import Metrics

Check = Callable[[], list[str]]
"""Says what is wrong, one sentence each; nothing wrong is an empty list. Called from any thread; must not block."""

_TEXT = "text/plain; charset=utf-8"
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\n\r\nbusy\n"


class HealthServer:
    """Serves the three pages from threads of its own, from `start` to `close`.

    `/livez` and `/readyz` answer 200 with `ok`, or 503 with one line for each thing that is wrong; a check that raises
    counts as wrong. `/metrics` answers in the Prometheus text format, or in OpenMetrics for a scraper that asks for it.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        live: Check,
        ready: Check,
        *,
        max_requests: int = 8,
        deadline_s: float = 10.0,
        poll_s: float = 0.25,
    ) -> None:
        """Take the port. Connections wait until `start`.

        Args:
            host: address or name to listen on; an IPv6 address without brackets.
            port: 0 picks a free one, see `port`.
            metrics: what `/metrics` shows.
            live: whether the process makes progress.
            ready: whether it can do its work now.
            max_requests: requests served at a time; further ones are told `busy` at once.
            deadline_s: seconds after which a request is cut off, however it trickles.
            poll_s: seconds between looks at the deadlines; `close` takes as long at most.

        Raises:
            OSError: the port is taken, or the address is not ours.
        """
        self._server = _Server(host, port, _Pages(metrics, live, ready), max_requests, deadline_s)
        self._poll_s = poll_s
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.server_port

    def start(self) -> None:
        """Begin to answer."""
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(self._poll_s,), name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and give the port back; requests in progress are not waited for. May be called twice."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()
        self._server.cut_off(older_than_s=0.0)


class _Pages:
    """What each path answers; knows nothing of sockets."""

    def __init__(self, metrics: Metrics, live: Check, ready: Check) -> None:
        self._metrics = metrics
        self._checks = {"/livez": live, "/readyz": ready}

    def answer(self, path: str, accept: str) -> tuple[HTTPStatus, bytes, str]:
        """Status, body and content type for a path; never raises."""
        try:
            if path == "/metrics":
                return HTTPStatus.OK, *self._metrics.expose(accept)
            if check := self._checks.get(path):
                return _verdict(check())
        except Exception as error:  # a gauge or a check that is computed now may fail in any way
            structlog.get_logger().error("health_page_failed", path=path, error=repr(error))
            status = HTTPStatus.INTERNAL_SERVER_ERROR if path == "/metrics" else HTTPStatus.SERVICE_UNAVAILABLE
            return status, _text([f"the check itself failed: {error!r}"]), _TEXT
        return HTTPStatus.NOT_FOUND, b"there is /metrics, /livez and /readyz\n", _TEXT


def _verdict(wrong: list[str]) -> tuple[HTTPStatus, bytes, str]:
    if wrong:
        return HTTPStatus.SERVICE_UNAVAILABLE, _text(wrong), _TEXT
    return HTTPStatus.OK, b"ok\n", _TEXT


def _text(lines: list[str]) -> bytes:
    """One line each, with everything that could forge a line or upset a terminal escaped: paths are in them."""
    escaped = ("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line) for line in lines)
    return "".join(f"{line}\n" for line in escaped).encode(errors="backslashreplace")


class _Server(ThreadingHTTPServer):
    """A thread for each request, bounded in number and time."""

    daemon_threads = True
    block_on_close = False  # a slow client must not hold up the end of the daemon
    allow_reuse_port = False  # two daemons on one port must fail, not share it
    request_queue_size = 16

    def __init__(self, host: str, port: int, pages: _Pages, max_requests: int, deadline_s: float) -> None:
        self.pages = pages
        self.deadline_s = deadline_s
        self._slots = threading.BoundedSemaphore(max_requests)
        self._open: dict[socket.socket, float] = {}  # socket -> monotonic start; guarded by _lock
        self._lock = threading.Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up in the DNS, which may take for ever; nobody here reads it.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(_BUSY)
            self.shutdown_request(request)
            return
        with self._lock:
            self._open[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread to be had: the slot is not used after all
            self._release(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._release(request)

    def service_actions(self) -> None:
        self.cut_off(older_than_s=self.deadline_s)

    def cut_off(self, older_than_s: float) -> None:
        """End every connection that is open for longer; its thread then finds the line dead and goes."""
        with self._lock:
            for request, started_s in self._open.items():
                if time.monotonic() - started_s >= older_than_s:
                    with contextlib.suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's names
        """Clients that go away are everyday; anything else is ours, and worth a line."""
        structlog.get_logger().error("health_request_failed", exc_info=True)

    def _release(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
        self._slots.release()


class _Handler(BaseHTTPRequestHandler):
    """One request, then the connection ends."""

    server_version = "pigeonholed"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(cast(_Server, self.server).deadline_s)

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client went away, or was cut off
            super().handle()

    def do_GET(self) -> None:
        pages = cast(_Server, self.server).pages
        self._send(*pages.answer(self.path.partition("?")[0], self.headers.get("Accept", "")))

    do_HEAD = do_GET  # noqa: N815 - http.server's name; _send leaves the body out

    def send_error(self, code: int, *_words: str | None, **_more: str | None) -> None:
        """Plain text instead of an HTML page that repeats what the client sent."""
        status = HTTPStatus(code)
        if status == HTTPStatus.NOT_IMPLEMENTED:  # http.server's word for a method without a do_ function
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._send(status, f"{status.phrase.lower()}\n".encode(), _TEXT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing: a scrape is not an event."""

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
