# SPDX-License-Identifier: Apache-2.0
"""HTTP server for metrics and health, on an address of its own.

A load balancer takes a process out that does not answer ``/readyz``, so clients that send or read slowly must
not keep others from being answered: a request has one deadline, and of the connections that wait for their
client, the oldest gives way to a new one.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from wsgiref import simple_server

import prometheus_client

from consoled import listening

LOG = logging.getLogger(__name__)

Check = Callable[[], object]

_REQUEST_TIMEOUT = 5.0  # seconds that a client may take in all, to send its request and to read the answer
_MAX_WAITING = 16  # connections that wait for their client at a time
_MAX_THREADS = 64  # more connections than that are refused
_MAX_HEAD = 16 * 1024  # bytes of a request
_MAX_AT_A_TIME = {'/metrics': 4, '/readyz': 16}  # answers that may take a while; more get 503
_CACHE_TIME = 1.0  # seconds for which the results of the checks are reused: frequent requests must be cheap


def bind(options: Any) -> socket.socket | None:
    """Bind the address of ``[monitoring]``, and warn if others than this machine reach it.

    It is done once, before the fork: a process that finds it taken later could only give up.

    :param options: the group, with ``host`` and ``port``
    :returns: None if the port is 0
    :raises OSError: the address is in use, or not of this machine
    :raises ValueError: it may not be used
    """
    if not options.port:
        return None
    if not listening.is_loopback(options.host):
        LOG.warning(
            '[monitoring] host: %s:%d is served without TLS and without access control; keep users away from '
            'it',
            options.host,
            options.port,
        )
    return listening.bind('monitoring', options.host, options.port)


class Readiness:
    """Runs readiness checks and caches their results for a moment.

    :param checks: checks by name; one that raises is not ready
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)
        self._lock = threading.Lock()
        self._checked_at = float('-inf')
        self._results: dict[str, str] = {}

    def check(self) -> dict[str, str]:
        """Return the result of each check by its name: ``ok``, or the class of its error."""
        with self._lock:
            if time.monotonic() - self._checked_at > _CACHE_TIME:
                self._results = {name: _result(check) for name, check in self._checks.items()}
                self._checked_at = time.monotonic()
            return dict(self._results)


def _result(check: Check) -> str:
    try:
        check()
    except Exception as exc:
        LOG.debug('A readiness check failed', exc_info=True)
        return type(exc).__name__
    return 'ok'


def application(registry: prometheus_client.CollectorRegistry, readiness: Readiness) -> Any:
    """Return the WSGI application.

    It serves ``/metrics`` (the registry), ``/healthz`` (200 while the process answers) and ``/readyz`` (200
    if all checks pass, else 503).
    """
    metrics = prometheus_client.make_wsgi_app(registry)
    permits = {path: threading.BoundedSemaphore(number) for path, number in _MAX_AT_A_TIME.items()}

    def respond(start_response: Any, status: str, body: object) -> list[bytes]:
        start_response(status, [('Content-Type', 'application/json'), ('Cache-Control', 'no-store')])
        return [json.dumps(body).encode() + b'\n']

    def answer(path: str | None, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if path == '/metrics':
            response: Iterable[bytes] = metrics(environ, start_response)
            return response
        if path == '/healthz':
            return respond(start_response, '200 OK', {'status': 'ok'})
        if path == '/readyz':
            results = readiness.check()
            ready = all(result == 'ok' for result in results.values())
            return respond(start_response, '200 OK' if ready else '503 Service Unavailable', results)
        return respond(start_response, '404 Not Found', {'error': 'not found'})

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get('PATH_INFO')
        permit = permits.get(path or '')
        if permit is None:
            return answer(path, environ, start_response)
        if not permit.acquire(blocking=False):
            return respond(start_response, '503 Service Unavailable', {'error': 'busy'})
        try:
            return answer(path, environ, start_response)
        finally:
            permit.release()

    return app


class _Waiting:
    """Connections that wait for their client, the oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, None] = {}

    @contextlib.contextmanager
    def client(self, connection: socket.socket) -> Iterator[None]:
        """Count a connection as waiting; if there are too many, end the oldest."""
        with self._lock:
            if len(self._connections) >= _MAX_WAITING:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
            self._connections[connection] = None
        try:
            yield
        finally:
            with self._lock:
                self._connections.pop(connection, None)


class _Handler(simple_server.WSGIRequestHandler):
    """Handler of one request, answered in memory: only receiving and sending wait for the client."""

    server: _Server

    def handle(self) -> None:
        deadline = time.monotonic() + _REQUEST_TIMEOUT
        with self.server.waiting.client(self.connection):
            head = self._receive_head(deadline)
        if not head:
            return
        self.rfile.close()
        self.rfile, self.wfile = io.BytesIO(head), io.BytesIO()
        super().handle()
        with self.server.waiting.client(self.connection):
            self.connection.settimeout(max(1.0, deadline - time.monotonic()))
            self.connection.sendall(self.wfile.getvalue())

    def _receive_head(self, deadline: float) -> bytes:
        """Return the head of the request; nothing if it does not come in time, or is too large."""
        head = b''
        while b'\r\n\r\n' not in head and b'\n\n' not in head:
            left = deadline - time.monotonic()
            if left <= 0 or len(head) > _MAX_HEAD:
                return b''
            self.connection.settimeout(left)
            data = self.connection.recv(_MAX_HEAD)
            if not data:
                return b''
            head += data
        return head

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the base class
        LOG.debug(format, *args)


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.waiting = _Waiting()
        self._threads_left = threading.BoundedSemaphore(_MAX_THREADS)
        super().__init__(*args, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._threads_left.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._threads_left.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.debug('A monitoring request failed', exc_info=True)


class MonitoringServer:
    """Serves a WSGI application in a thread.

    :param port: TCP port, or 0 for any free one
    :param sock: of this address, from ``bind``; default: a new one
    :ivar port: the TCP port in use
    """

    def __init__(self, host: str, port: int, app: Any, sock: socket.socket | None = None) -> None:
        sock = sock or listening.bind('monitoring', host, port)
        self._server = _Server((host, port), _Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = sock
        self._server.server_name, self._server.server_port = sock.getsockname()[:2]
        self._server.setup_environ()
        self._server.set_app(app)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and close the socket. Call this only after ``start``."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
