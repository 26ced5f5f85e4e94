# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of a compute agent."""

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
        self._reports = prometheus_client.Counter(
            'consoled_compute_told',
            'Reports to the managers, by method and outcome (ok, or the code of the error)',
            ['cell', 'method', 'code'],
            registry=self.registry,
        )
        self._instances = prometheus_client.Gauge(
            'consoled_compute_guests', 'Instances on this host', ['cell'], registry=self.registry
        )
        self._waiting = prometheus_client.Gauge(
            'consoled_compute_waiting',
            'Instances with a change that is not reported yet',
            ['cell'],
            registry=self.registry,
        )
        self._compared = prometheus_client.Gauge(
            'consoled_compute_synced_timestamp_seconds',
            'Time when all instances were last compared with what the managers know',
            ['cell'],
            registry=self.registry,
        )

    def observe_call(self, method: str, code: str, seconds: float) -> None:
        """Count an RPC call that was answered.

        :param code: ``ok``, or the code of the error
        """
        self._calls.labels(self._cell, method, code).observe(seconds)

    def count_report(self, method: str, code: str) -> None:
        """Count a report to the managers.

        :param code: ``ok``, or the code of the error
        """
        self._reports.labels(self._cell, method, code).inc()

    def set_waiting(self, instances: int) -> None:
        """Set the number of instances whose change is not reported yet."""
        self._waiting.labels(self._cell).set(instances)

    def set_compared(self, instances: int) -> None:
        """Record a comparison of all instances with the managers, and the number of instances."""
        self._instances.labels(self._cell).set(instances)
        self._compared.labels(self._cell).set(time.time())
