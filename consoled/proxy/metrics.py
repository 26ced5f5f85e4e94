# SPDX-License-Identifier: Apache-2.0
"""Metrics of the proxy, for Prometheus."""

from __future__ import annotations

import prometheus_client

from consoled.objects import EndReason
from consoled.proxy import close_codes
from consoled.proxy.session import Session

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds


class Metrics:
    """Metrics of one process. It observes the sessions of the process.

    :param cell: value of the ``cell`` label
    :param registry: registry that the metrics are registered with
    """

    def __init__(self, cell: str, registry: prometheus_client.CollectorRegistry) -> None:
        self._cell = cell
        self.registry = registry
        self._sessions = prometheus_client.Gauge(
            'consoled_proxy_sessions',
            'Sessions that are open, by console type',
            ['cell', 'type'],
            registry=registry,
            multiprocess_mode='livesum',
        )
        self._connections = prometheus_client.Gauge(
            'consoled_proxy_connections',
            'Connections of users, including those of sessions',
            ['cell'],
            registry=registry,
            multiprocess_mode='livesum',
        )
        self._leases = prometheus_client.Gauge(
            'consoled_proxy_leases',
            'Processes that have a lease and can open sessions',
            ['cell'],
            registry=registry,
            multiprocess_mode='livesum',
        )
        self._opened = self._counter('opened', 'Sessions opened, by console type', 'type')
        self._refused = self._counter('refused', 'Requests refused, by the code of the error', 'code')
        self._left_out = self._counter('left_out', 'Refusals left out of log and notifications', 'code')
        self._explained = self._counter(
            'explained', 'Requests for the reason of a refusal, by where it came from', 'source'
        )
        self._responses = self._counter('responses', 'HTTP responses, by status', 'status')
        self._closed = self._counter('closed', 'Sessions ended, by reason', 'reason')
        self._bytes = self._counter('bytes', 'Bytes of ended sessions, by direction', 'direction')
        self._turned_away = self._counter('turned_away', 'Connections closed at once, by limit', 'limit')
        self._stages = prometheus_client.Histogram(
            'consoled_proxy_stage_seconds',
            'Time of the stages of opening: authorize, target (connection and handshakes), open (all of it)',
            ['cell', 'stage'],
            buckets=_BUCKETS,
            registry=registry,
        )

    def _counter(self, name: str, text: str, label: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(
            f'consoled_proxy_{name}', text, ['cell', label], registry=self.registry
        )

    def opened(self, session: Session) -> None:
        """Count a session that opens."""
        console_type = session.console.console_type
        self._opened.labels(self._cell, console_type).inc()
        self._sessions.labels(self._cell, console_type).inc()

    def joined(self, session: Session) -> None:
        """Do nothing: sessions are counted, not their channels."""

    def ended(self, session: Session) -> None:
        """Count the end of a session, if it was open."""
        if not session.was_open:
            return
        reason = session.end_reason or EndReason.USER_LEFT
        self._closed.labels(self._cell, close_codes.metric_label(reason)).inc()
        self._sessions.labels(self._cell, session.console.console_type).dec()
        self._bytes.labels(self._cell, 'in').inc(session.bytes_in)
        self._bytes.labels(self._cell, 'out').inc(session.bytes_out)

    def refused(self, code: str) -> None:
        """Count a refused request, by the code of its error."""
        self._refused.labels(self._cell, code).inc()

    def left_out(self, code: str) -> None:
        """Count a refusal that was left out of log and notifications, by the code of its error."""
        self._left_out.labels(self._cell, code).inc()

    def explained(self, source: str) -> None:
        """Count a request for the reason of a refusal.

        :param source: ``memory``, ``manager``, or ``none`` if no manager was asked
        """
        self._explained.labels(self._cell, source).inc()

    def response(self, status: int) -> None:
        """Count an HTTP response, by its status."""
        self._responses.labels(self._cell, str(status)).inc()

    def turned_away(self, limit: str) -> None:
        """Count a connection that was closed at once, by the limit that it would have exceeded."""
        self._turned_away.labels(self._cell, limit).inc()

    def connections(self, number: int) -> None:
        """Set the number of users' connections."""
        self._connections.labels(self._cell).set(number)

    def lease(self, holds: bool) -> None:
        """Set whether this process holds a lease."""
        self._leases.labels(self._cell).set(int(holds))

    def stage(self, stage: str, seconds: float) -> None:
        """Record the duration of a stage of opening, in seconds."""
        self._stages.labels(self._cell, stage).observe(seconds)
