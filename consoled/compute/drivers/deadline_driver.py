# SPDX-License-Identifier: Apache-2.0
"""A driver whose calls to the hypervisor may hang, and are waited for until a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from oslo_config import cfg

from consoled import deadline, exception, objects
from consoled.compute.drivers import base

T = TypeVar('T')


class HypervisorCalls:
    """Makes calls in threads of their own, a limited number at a time, and waits for each until its deadline.

    A thread that hangs keeps its permit until it returns.

    :param conf: with ``[compute] hypervisor_threads``, ``hypervisor_timeout``
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._permits = threading.BoundedSemaphore(conf.compute.hypervisor_threads)

    def run(self, call: Callable[[], T]) -> T:
        """The call's result, or its exception.

        :raises HypervisorUnreachable: it did not return in time, or so many hang that it was not made
        """
        timeout: float = self._conf.compute.hypervisor_timeout
        started = time.monotonic()
        if not self._permits.acquire(timeout=timeout):
            raise exception.HypervisorUnreachable()

        def work() -> T:
            try:
                return call()
            finally:
                self._permits.release()

        left = started + timeout - time.monotonic()
        try:
            return deadline.call(work, left, thread_name='hypervisor-call')
        except deadline.NoThread:  # then nobody else gives the permit back
            self._permits.release()
            raise
        except deadline.DeadlineExceeded:
            raise exception.HypervisorUnreachable() from None


class DeadlineDriver(base.Driver):
    """A driver whose every answer comes in bounded time, or not at all (HypervisorUnreachable)."""

    def __init__(self, driver: base.Driver, conf: cfg.ConfigOpts) -> None:
        self._driver = driver
        self._calls = HypervisorCalls(conf)

    def list_instances(self) -> list[str]:
        return self._calls.run(self._driver.list_instances)

    def list_consoles(self, instance_uuid: str) -> list[objects.ConsoleConnection]:
        return self._calls.run(lambda: self._driver.list_consoles(instance_uuid))

    def check_ready(self, instance_uuid: str) -> None:
        self._calls.run(lambda: self._driver.check_ready(instance_uuid))

    def get_console(self, instance_uuid: str, console_type: str) -> list[objects.ConsoleConnection]:
        return self._calls.run(lambda: self._driver.get_console(instance_uuid, console_type))

    def check_console(self, instance_uuid: str, host: str, port: int, console_type: str) -> bool:
        return self._calls.run(lambda: self._driver.check_console(instance_uuid, host, port, console_type))

    def ping(self) -> None:
        self._calls.run(self._driver.ping)

    def watch(self, changed: base.Changed) -> None:
        self._calls.run(lambda: self._driver.watch(changed))

    def close(self) -> None:
        self._calls.run(self._driver.close)
