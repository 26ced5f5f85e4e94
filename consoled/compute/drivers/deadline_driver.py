# SPDX-License-Identifier: Apache-2.0
"""A driver with a deadline for each call to the hypervisor, because any of them may hang."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import TypeVar

from oslo_config import cfg

from consoled import deadline, exception, objects
from consoled.compute.drivers import base
from consoled.permits import NoPermit, Permits

T = TypeVar('T')


class HypervisorCalls:
    """Makes calls in separate threads, a limited number at a time, each with a deadline.

    A thread that hangs keeps its permit until its call returns. The calls about one guest may hold a quarter
    of the permits, so that a guest whose calls hang leaves some for the others. While all of these have
    missed their deadline, no further call waits: that would occupy the threads that answer for other guests.

    :param conf: with ``[compute] hypervisor_threads``, ``hypervisor_timeout``
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        threads: int = conf.compute.hypervisor_threads
        self._permits = Permits(threads)
        self._of_one_guest = max(1, threads // 4)

    def run(self, call: Callable[[], T], instance_uuid: str | None = None) -> T:
        """Return the result of the call, or raise its exception.

        :param instance_uuid: the guest that the call is about; None: it is about no single one
        :raises HypervisorUnreachable: the call did not return before the deadline, or was not made because
            too many others hang
        :raises NoThread: the system has no thread left for the call
        """
        timeout: float = self._conf.compute.hypervisor_timeout
        started = time.monotonic()
        limits: dict[Hashable, int] = {} if instance_uuid is None else {instance_uuid: self._of_one_guest}
        try:
            taken = self._permits.acquire(limits, timeout, stalled_after=timeout)
        except NoPermit:
            raise exception.HypervisorUnreachable() from None

        def call_and_release() -> T:
            try:
                return call()
            finally:
                self._permits.release(limits, taken)

        remaining = started + timeout - time.monotonic()
        try:
            return deadline.call(call_and_release, remaining, thread_name='hypervisor-call')
        except deadline.NoThread:  # call_and_release does not run, so it cannot release the permit
            self._permits.release(limits, taken)
            raise
        except deadline.DeadlineExceeded:
            raise exception.HypervisorUnreachable() from None


class DeadlineDriver(base.Driver):
    """Wraps a driver: a call that takes longer than its deadline raises HypervisorUnreachable.

    :param driver: the driver to call
    """

    def __init__(self, driver: base.Driver, conf: cfg.ConfigOpts) -> None:
        self._driver = driver
        self._calls = HypervisorCalls(conf)

    def list_instances(self) -> list[str]:
        return self._calls.run(self._driver.list_instances)

    def list_consoles(self, instance_uuid: str) -> list[objects.ConsoleConnection]:
        return self._calls.run(lambda: self._driver.list_consoles(instance_uuid), instance_uuid)

    def check_ready(self, instance_uuid: str) -> None:
        self._calls.run(lambda: self._driver.check_ready(instance_uuid), instance_uuid)

    def get_console(self, instance_uuid: str, console_type: str) -> list[objects.ConsoleConnection]:
        return self._calls.run(lambda: self._driver.get_console(instance_uuid, console_type), instance_uuid)

    def check_console(self, instance_uuid: str, host: str, port: int, console_type: str) -> bool:
        return self._calls.run(
            lambda: self._driver.check_console(instance_uuid, host, port, console_type), instance_uuid
        )

    def ping(self) -> None:
        self._calls.run(self._driver.ping)

    def watch(self, changed: base.Changed) -> None:
        self._calls.run(lambda: self._driver.watch(changed))

    def close(self) -> None:
        self._calls.run(self._driver.close)
