# SPDX-License-Identifier: Apache-2.0
"""Calls to the managers from the event loop, in a bounded number of threads.

The RPC client blocks. Nobody waits for a thread longer than for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.proxy.close_reports import CloseReports
from consoled.proxy.lease import Lease
from consoled.proxy.session import Session, State
from consoled.rpc.client import ConsoleAuthAPI

T = TypeVar('T')


class ManagerClient:
    """Opens sessions and validates tokens at the managers.

    :param lease: sessions are opened under it
    :param close_reports: told of sessions that were opened although nobody waits for them any more
    :param timeout: seconds to wait for an answer
    :param threads: calls at a time
    :param max_pending: calls at a time and waiting for a thread; more are refused
    """

    def __init__(
        self,
        api: ConsoleAuthAPI,
        lease: Lease,
        close_reports: CloseReports,
        *,
        timeout: float,
        threads: int,
        max_pending: int,
    ) -> None:
        self._api = api
        self._lease = lease
        self._close_reports = close_reports
        self._timeout = timeout
        self._max_pending = max_pending
        self._threads = futures.ThreadPoolExecutor(threads, thread_name_prefix='open')
        self._pending = 0

    def stop(self) -> None:
        """Make no more calls; those under way are left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def validate(self, token: str) -> objects.ConsoleAuthToken:
        """Return what a token authorizes.

        :raises ConsoledException: as ``ConsoleAuthAPI.validate``, and ProxyBusy
        """
        return await self._call(lambda: self._api.validate(RequestContext(), token))

    async def open_session(self, session: Session, token: str) -> objects.ConsoleSession:
        """Open a session, or ask again whether an open one may still be connected.

        :raises ConsoledException: as ``ConsoleAuthAPI.open_session``, and ProxyBusy
        """
        lease = self._lease
        if not lease.holds:
            raise exception.ManagerUnreachable(reason='this proxy has no lease')
        proxy_id, epoch = lease.proxy_id, lease.epoch
        repeated = session.may_be_stored
        session.may_be_stored = True

        def call() -> tuple[objects.ConsoleSession, float]:
            return _timed(self._api.open_session, token, session.id, proxy_id, session.client_address)

        granted: objects.ConsoleSession
        try:
            granted, asked_at = await self._call(call, functools.partial(self._answered_late, session))
        except BaseException as exc:
            if isinstance(exc, exception.ProxyUnknown):
                lease.renew_soon()
            if not _was_refused(exc):
                lease.list_soon()
            elif not repeated:
                session.may_be_stored = False
            raise
        # The slot of one that was opened before the lease ended may be another's by now.
        kept = not granted.limited or (lease.holds and lease.epoch == epoch)
        if lease.proxy_id != granted.proxy_id or not kept:
            lease.list_soon()
            raise exception.ManagerUnreachable(reason='the lease was lost meanwhile')
        session.asked_at = asked_at
        return granted

    def _answered_late(self, session: Session, _: object) -> None:
        """Report the end of a session again that was opened after it had ended.

        Otherwise it would hold its port until the lease ends. A session that is still live is left alone:
        other websockets of its client use it, and its end will be reported.
        """
        if session.state is State.ENDED:
            self._close_reports.ended(session)

    async def _call(self, call: Callable[[], T], late: Callable[[T], None] | None = None) -> T:
        """Call in a thread, for ``timeout`` seconds at most.

        :param late: given what the call returns if nobody waits for it any more
        """
        if self._pending >= self._max_pending:
            raise exception.ProxyBusy()
        loop = asyncio.get_running_loop()
        future = self._threads.submit(call)
        self._pending += 1
        future.add_done_callback(lambda _: _call_soon(loop, self._done))
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(_retrieve_error)
        try:
            # not wait_for: before Python 3.12 it can swallow a cancellation that comes with the answer
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(answer)
        except (TimeoutError, asyncio.CancelledError) as exc:
            if not future.cancel() and late is not None:
                future.add_done_callback(functools.partial(_deliver_late, loop, late))
            if isinstance(exc, TimeoutError):
                raise exception.ManagerUnreachable(reason='no answer in time') from None
            raise

    def _done(self) -> None:
        self._pending -= 1


def _was_refused(error: BaseException) -> bool:
    """Return whether a session was certainly not opened."""
    if isinstance(error, exception.ProxyBusy):  # nobody was asked
        return True
    return isinstance(error, exception.ConsoledException) and error.http_status < 500


def _timed(method: Callable[..., T], *values: Any) -> tuple[T, float]:
    """Return the result of a call, and when it left: it may have waited for its thread.

    The context is made here, in the thread of the call: in the event loop's thread, oslo.log would put its
    request id into the lines of all sessions.
    """
    asked_at = time.monotonic()
    return method(RequestContext(), *values), asked_at


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *values: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(function, *values)


def _deliver_late(
    loop: asyncio.AbstractEventLoop, late: Callable[[T], None], future: futures.Future[T]
) -> None:
    """In the thread of the call."""
    if not future.cancelled() and future.exception() is None:
        _call_soon(loop, late, future.result())


def _retrieve_error(answer: asyncio.Future[Any]) -> None:
    """Keep asyncio from logging an error that comes when nobody waits for it any more."""
    if not answer.cancelled():
        answer.exception()
