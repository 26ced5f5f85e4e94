# SPDX-License-Identifier: Apache-2.0
"""The lease of a proxy process: registered, renewed, and given up in time (doc/design.md, invariant 4)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

from consoled import backoff, exception
from consoled.context import RequestContext
from consoled.objects import EndReason
from consoled.proxy.registry import SessionRegistry
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.replies import LeaseGrant

T = TypeVar('T')

LOG = logging.getLogger(__name__)

_RETRY = 1.0  # seconds before a call that failed is made again
_MARGIN = 0.1  # of the lease: what is left of it when limited sessions are cut
_LIST_EVERY = 5  # renewals between two that name all sessions
_LIST_SOON = 3  # the same after an open whose outcome is not known: managers delete a row only at some age


class ProxyLife:
    """One life of a proxy process, as the managers know it.

    :param name: of this process among the proxies of the cell
    :ivar id: chosen anew when the managers have forgotten this process
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.id = str(uuid.uuid4())

    def renew(self) -> None:
        """Begin another life."""
        self.id = str(uuid.uuid4())


class Lease:
    """Registers this process, renews its lease, and cuts sessions when it is lost.

    The lease is counted from before the request left, on the clock of the event loop: it ends here before
    it ends for the managers, whatever the clocks show.

    :param registry: whose sessions live under the lease
    :ivar epoch: how often a lease has ended without a new one
    """

    def __init__(self, api: ConsoleAuthAPI, life: ProxyLife, registry: SessionRegistry) -> None:
        self._api = api
        self._life = life
        self._registry = registry
        self.epoch = 0
        self._registered = False
        self._seconds = 0.0
        self._until: float | None = None  # by the clock of the event loop; None: there is no lease
        self._granted_at = ''  # the database's time, as the last reply had it
        self._until_list = _LIST_EVERY  # renewals
        self._wake = asyncio.Event()
        self._fence: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        # A thread of its own: opens that hang must not keep the lease from being renewed.
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix='lease')

    @property
    def proxy_id(self) -> str:
        """The id of this life."""
        return self._life.id

    @property
    def holds(self) -> bool:
        """Whether there is a lease, so that sessions can be opened."""
        return self._registered and self._until is not None and self._loop.time() < self._until

    def start(self) -> None:
        """Begin to hold a lease; ``holds`` says when there is one."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._hold(), name='lease')

    async def stop(self) -> None:
        """Renew no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._fence is not None:
            self._fence.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def renew_soon(self) -> None:
        """Renew at once: the managers may have forgotten this process."""
        self._wake.set()

    def list_soon(self) -> None:
        """Name all sessions to the managers soon.

        A close may overtake an open that is carried out late: only a list finds the row of that one.
        """
        self._until_list = min(self._until_list or _LIST_EVERY, _LIST_SOON)

    async def _hold(self) -> None:
        while True:
            try:
                if self._registered:
                    self._until_list = (self._until_list or _LIST_EVERY) - 1
                    await self._renew(with_sessions=self._until_list == 0)
                else:
                    await self._register()
            except exception.ProxyUnknown:
                LOG.warning('The managers have forgotten this proxy: registering again')
                self._begin_new_life()
                continue
            except Exception as exc:
                LOG.warning('Failed to renew the lease: %s', exc)
                await asyncio.sleep(_RETRY)
                continue
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff.jittered(self._seconds / 3)):
                await self._wake.wait()
        self._wake.clear()

    async def _register(self) -> None:
        asked_at = self._loop.time()
        reply = await self._call(self._api.register_proxy, self._life.id, self._life.name)
        self._granted(asked_at, reply)
        self._registered = True
        LOG.info('Registered proxy %s as %s', self._life.name, self._life.id)

    async def _renew(self, *, with_sessions: bool) -> None:
        named: dict[str, Any] = {}
        opening: set[str] = set()
        if with_sessions and self._until is not None:
            opening = self._registry.opening_ids()
            named = {'sessions': self._registry.ids(), 'as_of': self._granted_at}
        asked_at = self._loop.time()
        reply = await self._call(self._api.renew_lease, self._life.id, **named)
        self._granted(asked_at, reply)
        # The managers may have compared before the row of one that was being opened was there.
        self._registry.cut(
            {
                session_id: reason
                for session_id, reason in reply.cut.items()
                if session_id not in opening or reason != EndReason.LEASE_LOST
            }
        )

    async def _call(self, method: Callable[..., T], *values: Any, **named: Any) -> T:
        # The context is made in the thread of the call, whose log lines then show its request id.
        return await self._loop.run_in_executor(
            self._thread, lambda: method(RequestContext(), *values, **named)
        )

    def _granted(self, asked_at: float, reply: LeaseGrant) -> None:
        seconds = reply.lease
        self._granted_at = reply.now
        self._seconds, self._until = seconds, asked_at + seconds
        if self._fence is not None:
            self._fence.cancel()
        self._fence = self._loop.call_at(self._until - seconds * _MARGIN, self._lapse)

    def _lapse(self) -> None:
        """End limited sessions before the managers give their slots to others."""
        LOG.error('The lease could not be renewed in time: cutting limited sessions')
        self._until = None
        self.epoch += 1
        self._registry.cut_limited(EndReason.LEASE_LOST)

    def _begin_new_life(self) -> None:
        self._registered = False
        self._until = None
        self._life.renew()
        self._registry.cut_all(EndReason.LEASE_LOST)
