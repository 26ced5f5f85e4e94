# SPDX-License-Identifier: Apache-2.0
"""What a compute agent counts, for Prometheus."""

from __future__ import annotations

import time

import prometheus_client

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds


class Metrics:
    """Metrics of one agent, in a registry of its own.

    :param cell: value of the ``cell`` label
    """

    def __init__(self, cell: str) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._cell = cell
        self._calls = prometheus_client.Histogram(
            'consoled_compute_rpc_seconds',
            'Time to answer RPC calls, by method and outcome (ok, or the code of the error)',
            ['cell', 'method', 'code'],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._told = prometheus_client.Counter(
            'consoled_compute_told',
            'What managers were told, by method and outcome (ok, or the code of the error)',
            ['cell', 'method', 'code'],
            registry=self.registry,
        )
        self._guests = prometheus_client.Gauge(
            'consoled_compute_guests', 'Guests on this host', ['cell'], registry=self.registry
        )
        self._waiting = prometheus_client.Gauge(
            'consoled_compute_waiting',
            'Guests whose change the managers do not know yet',
            ['cell'],
            registry=self.registry,
        )
        self._synced = prometheus_client.Gauge(
            'consoled_compute_synced_timestamp_seconds',
            'When all guests were last compared with what the managers know',
            ['cell'],
            registry=self.registry,
        )

    def called(self, method: str, code: str, seconds: float) -> None:
        self._calls.labels(self._cell, method, code).observe(seconds)

    def told(self, method: str, code: str) -> None:
        self._told.labels(self._cell, method, code).inc()

    def waiting(self, guests: int) -> None:
        self._waiting.labels(self._cell).set(guests)

    def synced(self, guests: int) -> None:
        self._guests.labels(self._cell).set(guests)
        self._synced.labels(self._cell).set(time.time())
