# SPDX-License-Identifier: Apache-2.0
"""A bound on the threads that calls of one kind may occupy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from oslo_config import cfg

from consoled import exception


class ThreadShare:
    """Half of a worker's threads, for calls that may wait on another service.

    The other half stays free to answer everything else while that service hangs.

    :param threads: threads that answer calls in this process
    """

    def __init__(self, threads: int) -> None:
        self._permits = threading.BoundedSemaphore(max(1, threads // 2))

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> ThreadShare:
        """Return a share of ``[DEFAULT] executor_thread_pool_size`` threads."""
        return cls(conf.executor_thread_pool_size)

    @contextlib.contextmanager
    def permit(self, timeout: float = 0.0) -> Iterator[None]:
        """Hold one thread of the share.

        :param timeout: seconds to wait for a permit
        :raises ManagerBusy: all permits are taken
        """
        if not self._permits.acquire(timeout=timeout):
            raise exception.ManagerBusy()
        try:
            yield
        finally:
            self._permits.release()
