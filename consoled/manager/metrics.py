# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of a manager."""

from __future__ import annotations

import prometheus_client

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds


class Metrics:
    """Metrics of one process, in a registry of their own.

    :param cell: value of the ``cell`` label
    """

    def __init__(self, cell: str) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._calls = prometheus_client.Histogram(
            'consoled_rpc_seconds',
            'Time to answer RPC calls, by method and outcome (ok, or the code of the error)',
            ['cell', 'method', 'code'],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._closed = prometheus_client.Counter(
            'consoled_sessions_closed',
            'Sessions closed',
            ['cell'],
            registry=self.registry,
        )
        self._bytes = prometheus_client.Counter(
            'consoled_session_bytes',
            'Bytes relayed by closed sessions, by direction (in: from the user, out: to the user)',
            ['cell', 'direction'],
            registry=self.registry,
        )
        self._lookups = prometheus_client.Counter(
            'consoled_legacy_lookups',
            'Token lookups outside the database, by source and outcome (found, unknown, refused, '
            'unavailable)',
            ['cell', 'source', 'outcome'],
            registry=self.registry,
        )
        self._contested = prometheus_client.Counter(
            'consoled_contested_consoles',
            'Consoles found at an address that an instance of another compute host has too, by what '
            'was done with them (define, authorize, open)',
            ['cell', 'step'],
            registry=self.registry,
        )
        self._watch = prometheus_client.Histogram(
            'consoled_watch_seconds',
            'Time of passes over the sessions of tokens of Nova, by outcome (ok, unavailable, failed)',
            ['cell', 'outcome'],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._watch_cuts = prometheus_client.Counter(
            'consoled_watch_cuts',
            'Sessions cut because of what Nova says of their guests, by end reason',
            ['cell', 'reason'],
            registry=self.registry,
        )
        self._cell = cell

    def called(self, method: str, code: str, seconds: float) -> None:
        """Count a call that was answered after ``seconds``.

        :param code: ``ok``, or the code of the error
        """
        self._calls.labels(self._cell, method, code).observe(seconds)

    def looked_up(self, source: str, outcome: str) -> None:
        """Count a token lookup outside the database."""
        self._lookups.labels(self._cell, source, outcome).inc()

    def contested(self, step: str, consoles: int) -> None:
        """Count contested consoles."""
        self._contested.labels(self._cell, step).inc(consoles)

    def watched(self, outcome: str, seconds: float) -> None:
        """Count a pass over the sessions of tokens of Nova."""
        self._watch.labels(self._cell, outcome).observe(seconds)

    def watch_cut(self, reason: str, sessions: int) -> None:
        """Count sessions that such a pass has cut."""
        self._watch_cuts.labels(self._cell, reason).inc(sessions)

    def closed(self, bytes_in: int, bytes_out: int) -> None:
        """Count a closed session and the bytes it relayed."""
        self._closed.labels(self._cell).inc()
        self._bytes.labels(self._cell, 'in').inc(bytes_in)
        self._bytes.labels(self._cell, 'out').inc(bytes_out)
