# SPDX-License-Identifier: Apache-2.0
"""Metrics and health over HTTP, on an address of their own."""

from __future__ import annotations

import json
import logging
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref import simple_server

import prometheus_client

LOG = logging.getLogger(__name__)

Check = Callable[[], object]

_REQUEST_TIMEOUT = 5  # seconds a client may take to send its request
_MAX_REQUESTS = 16  # at a time; more are turned away
_READY_FOR = 1.0  # seconds an answer of the checks is used again: asking often must not cost much


class Readiness:
    """Runs checks, and remembers their answer for a moment.

    :param checks: by name; a check that raises says "not ready"
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)
        self._lock = threading.Lock()
        self._asked_at = float('-inf')
        self._answers: dict[str, str] = {}

    def ask(self) -> dict[str, str]:
        """Return ``ok`` or what is wrong, by the check's name."""
        with self._lock:
            if time.monotonic() - self._asked_at > _READY_FOR:
                self._answers = {name: _answer(check) for name, check in self._checks.items()}
                self._asked_at = time.monotonic()
            return dict(self._answers)


def _answer(check: Check) -> str:
    try:
        check()
    except Exception as exc:
        LOG.debug('not ready', exc_info=True)
        return type(exc).__name__
    return 'ok'


def application(registry: prometheus_client.CollectorRegistry, readiness: Readiness) -> Any:
    """Return the WSGI application: ``/metrics``, ``/healthz`` (it answers), ``/readyz`` (it can work)."""
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
            answers = readiness.ask()
            ready = all(answer == 'ok' for answer in answers.values())
            return respond(start_response, '200 OK' if ready else '503 Service Unavailable', answers)
        return respond(start_response, '404 Not Found', {'error': 'not found'})

    return app


class _Handler(simple_server.WSGIRequestHandler):
    timeout = _REQUEST_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        LOG.debug(format, *args)


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._places = threading.BoundedSemaphore(_MAX_REQUESTS)
        super().__init__(*args, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.debug('a monitoring request failed', exc_info=True)


class MonitoringServer:
    """Serves the application in a thread, until ``stop``."""

    def __init__(self, host: str, port: int, app: Any) -> None:
        self._server = simple_server.make_server(
            host, port, app, server_class=_Server, handler_class=_Handler
        )
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
