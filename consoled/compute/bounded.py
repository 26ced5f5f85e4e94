# SPDX-License-Identifier: Apache-2.0
"""Calls to a hypervisor that may hang: each has a deadline, and those that hang are bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

from oslo_config import cfg

from consoled import exception, objects
from consoled.compute.drivers import base

T = TypeVar('T')


class Bounded:
    """Runs calls in threads of their own, a limited number at a time, and waits for each until its deadline.

    A thread that hangs can't be ended. It keeps its place until it returns, and keeps no process from ending.

    :param conf: with ``[compute] hypervisor_threads``, ``hypervisor_timeout``
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._places = threading.BoundedSemaphore(conf.compute.hypervisor_threads)

    def run(self, call: Callable[[], T]) -> T:
        """The call's result, or its exception.

        :raises HypervisorUnreachable: it did not return in time, or so many hang that it was not made
        """
        deadline = time.monotonic() + self._conf.compute.hypervisor_timeout
        if not self._places.acquire(timeout=self._conf.compute.hypervisor_timeout):
            raise exception.HypervisorUnreachable()
        outcome: futures.Future[T] = futures.Future()

        def work() -> None:
            try:
                outcome.set_result(call())
            except BaseException as exc:
                outcome.set_exception(exc)
            finally:
                self._places.release()

        try:
            threading.Thread(target=work, name='hypervisor-call', daemon=True).start()
        except RuntimeError:  # no thread to be had: then nobody frees the place
            self._places.release()
            raise
        done, _ = futures.wait([outcome], max(0.0, deadline - time.monotonic()))
        if not done:
            raise exception.HypervisorUnreachable()
        return outcome.result()


class BoundedDriver(base.Driver):
    """A driver whose every answer comes in bounded time, or not at all (HypervisorUnreachable)."""

    def __init__(self, driver: base.Driver, conf: cfg.ConfigOpts) -> None:
        self._driver = driver
        self._bounded = Bounded(conf)

    def list_instances(self) -> list[str]:
        return self._bounded.run(self._driver.list_instances)

    def list_consoles(self, instance_uuid: str) -> list[objects.ConsoleConnection]:
        return self._bounded.run(lambda: self._driver.list_consoles(instance_uuid))

    def check_ready(self, instance_uuid: str) -> None:
        self._bounded.run(lambda: self._driver.check_ready(instance_uuid))

    def get_console(self, instance_uuid: str, console_type: str) -> list[objects.ConsoleConnection]:
        return self._bounded.run(lambda: self._driver.get_console(instance_uuid, console_type))

    def check_console(self, instance_uuid: str, host: str, port: int, console_type: str) -> bool:
        return self._bounded.run(lambda: self._driver.check_console(instance_uuid, host, port, console_type))

    def ping(self) -> None:
        self._bounded.run(self._driver.ping)

    def watch(self, changed: base.Changed) -> None:
        self._bounded.run(lambda: self._driver.watch(changed))

    def close(self) -> None:
        self._bounded.run(self._driver.close)
