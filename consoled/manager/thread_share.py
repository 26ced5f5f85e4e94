# SPDX-License-Identifier: Apache-2.0
"""A bound on the threads that calls of one kind may occupy, in all and for one party."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterator, Mapping

from oslo_config import cfg

from consoled import exception
from consoled.permits import NoPermit, Permits


class ThreadShare:
    """A share of a worker's threads, for calls that may wait on a peer.

    The other threads stay free to answer everything else while peers hang. One peer that hangs can hold a few
    threads of the share only, so that the calls that wait on other peers go on.

    :param threads: threads that answer calls in this process
    :param eighths: size of the share, in eighths of these threads
    :ivar size: threads of the share
    """

    def __init__(self, threads: int, eighths: int) -> None:
        self.size = max(1, threads * eighths // 8)
        self._permits = Permits(self.size)

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts, eighths: int) -> ThreadShare:
        """Return a share of ``[DEFAULT] executor_thread_pool_size`` threads."""
        return cls(conf.executor_thread_pool_size, eighths)

    @contextlib.contextmanager
    def permit(
        self,
        limits: Mapping[Hashable, int] | None = None,
        *,
        timeout: float = 0.0,
        stalled_after: float = math.inf,
        refusal: exception.ConsoledException | None = None,
    ) -> Iterator[None]:
        """Hold one thread of the share.

        :param limits: the parties that the call waits on, and how many threads each may hold
        :param timeout: seconds to wait for a permit
        :param stalled_after: seconds after which a call counts as stuck: no other waits for the permits of a
            party all of whose calls are
        :param refusal: what to raise if one of the parties holds as many as it may
        :raises ManagerBusy: the whole share is taken
        """
        limits = limits or {}
        try:
            taken = self._permits.acquire(limits, timeout, stalled_after)
        except NoPermit as exc:
            if exc.party is None or refusal is None:
                raise exception.ManagerBusy() from None
            raise refusal from None
        try:
            yield
        finally:
            self._permits.release(limits, taken)
