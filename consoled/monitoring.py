# SPDX-License-Identifier: Apache-2.0
"""HTTP server for metrics and health, on an address of its own."""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref import simple_server

import prometheus_client

from consoled import listening

LOG = logging.getLogger(__name__)

Check = Callable[[], object]

_REQUEST_TIMEOUT = 5  # seconds a client may take to send its request
_MAX_REQUESTS = 16  # at a time; more are refused
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

    def respond(start_response: Any, status: str, body: object) -> list[bytes]:
        start_response(status, [('Content-Type', 'application/json'), ('Cache-Control', 'no-store')])
        return [json.dumps(body).encode() + b'\n']

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get('PATH_INFO')
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

    return app


class _Handler(simple_server.WSGIRequestHandler):
    timeout = _REQUEST_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the base class
        LOG.debug(format, *args)


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._permits = threading.BoundedSemaphore(_MAX_REQUESTS)
        super().__init__(*args, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._permits.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._permits.release()

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
