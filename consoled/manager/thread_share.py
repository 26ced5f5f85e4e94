# SPDX-License-Identifier: Apache-2.0
"""A bound on the threads that calls of one kind may occupy, in all and for one party."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterator

from oslo_config import cfg

from consoled import exception
from consoled.permits import NoPermit, Permits


class ThreadShare:
    """A share of a worker's threads, for calls that may wait on a peer.

    The other threads stay free to answer everything else while peers hang. One peer that hangs can hold a few
    threads of the share only, so that the calls that wait on other peers go on.

    :param threads: threads that answer calls in this process
    :param eighths: size of the share, in eighths of these threads
    :param each: threads of the share that one party may hold
    """

    def __init__(self, threads: int, eighths: int, each: int | None = None) -> None:
        total = max(1, threads * eighths // 8)
        self._permits = Permits(total, total if each is None else each)

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts, eighths: int, each: int | None = None) -> ThreadShare:
        """Return a share of ``[DEFAULT] executor_thread_pool_size`` threads."""
        return cls(conf.executor_thread_pool_size, eighths, each)

    @contextlib.contextmanager
    def permit(
        self,
        *parties: Hashable,
        timeout: float = 0.0,
        stalled_after: float = math.inf,
        refusal: exception.ConsoledException | None = None,
    ) -> Iterator[None]:
        """Hold one thread of the share.

        :param parties: those who hold it; None is no party
        :param timeout: seconds to wait for a permit
        :param stalled_after: seconds after which a call that waits on a party counts as stuck, and no other
            waits for that party's permits
        :param refusal: what to raise if one of the parties holds as many as it may
        :raises ManagerBusy: the whole share is taken
        """
        holders = [party for party in parties if party is not None]
        try:
            taken = self._permits.acquire(holders, timeout, stalled_after)
        except NoPermit as exc:
            if exc.party is None or refusal is None:
                raise exception.ManagerBusy() from None
            raise refusal from None
        try:
            yield
        finally:
            self._permits.release(holders, taken)
