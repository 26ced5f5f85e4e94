# SPDX-License-Identifier: Apache-2.0
"""Lease of a proxy process: registered, renewed, and given up in time (doc/design.md, invariant 4)."""

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

_RETRY = 1.0  # seconds between a failed call and the next attempt
_MARGIN = 0.1  # fraction of the lease that is left when limited sessions are cut
_LIST_EVERY = 5  # one renewal in this many lists all sessions
_LIST_SOON = 3  # the same after an open whose outcome is unknown: managers only delete rows of some age


class ProxyLife:
    """One life of a proxy process, as it is registered with the managers.

    :param name: name of this process, unique among the proxies of the cell
    :ivar id: UUID of this life; replaced when the managers have forgotten the process
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.id = str(uuid.uuid4())

    def replace(self) -> None:
        """Begin another life, with a new id."""
        self.id = str(uuid.uuid4())


class Lease:
    """Registers this process, renews its lease, and cuts sessions when the lease is lost.

    The lease is counted on the clock of the event loop, from before its request is sent. It therefore ends
    here before it ends for the managers, whatever their clocks say.

    :param registry: the sessions that depend on the lease
    :ivar epoch: number of times that the lease has lapsed
    """

    def __init__(self, api: ConsoleAuthAPI, life: ProxyLife, registry: SessionRegistry) -> None:
        self._api = api
        self._life = life
        self._registry = registry
        self.epoch = 0
        self._registered = False
        self._seconds = 0.0
        self._until: float | None = None  # reading of the event loop's clock; None: there is no lease
        self._granted_at = ''  # the database's time, from the last reply
        self._until_list = _LIST_EVERY  # renewals until one that lists all sessions
        self._wake = asyncio.Event()
        self._fence: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        # The lease has its own thread: opens that hang must not delay its renewal.
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix='lease')

    @property
    def proxy_id(self) -> str:
        """Id of this life of the process."""
        return self._life.id

    @property
    def holds(self) -> bool:
        """Whether the process has a lease, without which it opens no session."""
        return self._registered and self._until is not None and self._loop.time() < self._until

    def start(self) -> None:
        """Start registering and renewing; ``holds`` becomes true once there is a lease."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._hold(), name='lease')

    async def stop(self) -> None:
        """Stop renewing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._fence is not None:
            self._fence.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def renew_soon(self) -> None:
        """Renew at once, because the managers may have forgotten this process."""
        self._wake.set()

    def list_soon(self) -> None:
        """Send the managers the list of all sessions soon.

        A close may overtake an open that is carried out late. Only the list finds the row of such an open.
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
                if self.holds:  # so its life was ended, and not forgotten
                    LOG.error(
                        'Another proxy registers as %s: give each its own [DEFAULT] host or [proxy] port',
                        self._life.name,
                    )
                LOG.warning('Proxy %s is unknown to the managers: registering again', self._life.id)
                self._begin_new_life()
                continue
            except Exception as exc:
                LOG.warning('Failed to renew the lease: %s', exc)
                await asyncio.sleep(backoff.jittered(_RETRY))
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
        # The managers may have compared the list before they stored the row of a session in it that was
        # being opened.
        self._registry.cut(
            {
                session_id: reason
                for session_id, reason in reply.cut.items()
                if session_id not in opening or reason != EndReason.LEASE_LOST
            }
        )

    async def _call(self, method: Callable[..., T], *values: Any, **named: Any) -> T:
        # The context is created in the thread of the call, whose log lines then have its request id.
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
        LOG.error('Failed to renew the lease in time: cutting limited sessions')
        self._until = None
        self.epoch += 1
        self._registry.cut_limited(EndReason.LEASE_LOST)

    def _begin_new_life(self) -> None:
        self._registered = False
        self._until = None
        self._life.replace()
        self._registry.cut_stored(EndReason.LEASE_LOST)
