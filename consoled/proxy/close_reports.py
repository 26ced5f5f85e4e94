# SPDX-License-Identifier: Apache-2.0
"""Reports of ended sessions to the managers, repeated until a manager acknowledges them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent import futures

from consoled import backoff, exception
from consoled.context import RequestContext
from consoled.objects import EndReason
from consoled.proxy.lease import ProxyLife
from consoled.proxy.session import Session
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.replies import Closing

LOG = logging.getLogger(__name__)

_RETRY = 1.0  # seconds between a failed call and the next attempt
_MAX_BATCH = 500  # reports in one call
_POLL = 0.02  # seconds between two checks for pending reports, while stopping


class CloseReports:
    """Observer that reports the end of each session that the managers may have a row for.

    :param life: life of the proxy that the sessions belong to
    """

    def __init__(self, api: ConsoleAuthAPI, life: ProxyLife) -> None:
        self._api = api
        self._life = life
        self._pending: dict[str, Closing] = {}  # reports that are not acknowledged yet, by session id
        self._added = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Reports have their own thread: opens that hang must not keep ports from becoming free.
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix='close')

    def __len__(self) -> int:
        """Return the number of reports that are not acknowledged yet."""
        return len(self._pending)

    def start(self) -> None:
        """Start sending reports."""
        self._task = asyncio.get_running_loop().create_task(self._send_all(), name='close-reports')

    async def stop(self, timeout: float) -> None:
        """Send the pending reports, for ``timeout`` seconds at most."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while self._pending and loop.time() < deadline:
            await asyncio.sleep(_POLL)
        if self._pending:
            LOG.warning(
                'Failed to report %d ended sessions: the managers will close them when the lease ends',
                len(self._pending),
            )
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def opened(self, session: Session) -> None:
        """Do nothing: a manager opened the session and knows."""

    def joined(self, session: Session) -> None:
        """Do nothing: a manager was asked."""

    def ended(self, session: Session) -> None:
        """Report the end of the session, unless the managers certainly have no row for it."""
        if session.may_be_stored:
            reason = session.end_reason or EndReason.USER_LEFT
            self.add(session.id, reason, session.bytes_in, session.bytes_out)

    def add(self, session_id: str, reason: str, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Report a session as closed until a manager acknowledges it."""
        self._pending[session_id] = Closing(session_id, reason, bytes_in, bytes_out)
        self._added.set()

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._added.wait()
            self._added.clear()
            while self._pending:
                # A call takes many reports: thousands of sessions may end at once.
                batch = list(self._pending.values())[:_MAX_BATCH]
                try:
                    await loop.run_in_executor(self._thread, self._send, batch)
                except Exception as exc:
                    LOG.warning('Failed to report %d closed sessions: %s', len(batch), exc)
                    await asyncio.sleep(backoff.jittered(_RETRY))
                    continue
                for closing in batch:
                    if self._pending.get(closing.session_id) is closing:
                        del self._pending[closing.session_id]

    def _send(self, batch: list[Closing]) -> None:
        if len(batch) == 1:
            self._api.close_session(RequestContext(), batch[0])
            return
        with contextlib.suppress(exception.ProxyUnknown):  # its sessions have ended with it
            self._api.renew_lease(RequestContext(), self._life.id, closed=batch)
