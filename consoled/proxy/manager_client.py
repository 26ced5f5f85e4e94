# SPDX-License-Identifier: Apache-2.0
"""Asynchronous client for the managers: makes blocking RPC calls in a bounded number of threads.

The timeout of a call includes the time that it waits for a thread.
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
    """Asks managers to open sessions and to validate tokens.

    :param lease: the lease that sessions are opened under
    :param close_reports: reports sessions that were opened after their caller had stopped waiting
    :param timeout: seconds to wait for an answer
    :param threads: number of calls at a time
    :param max_pending: number of calls in progress or waiting for a thread; further calls are refused
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
        """Make no further calls. Calls in progress are abandoned."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def validate(self, token: str) -> objects.ConsoleAuthToken:
        """Return the console and the user that a token authorizes.

        :raises ConsoledException: as ``ConsoleAuthAPI.validate``
        :raises ProxyBusy: when too many calls are pending
        :raises ManagerUnreachable: when there is no answer in time
        """
        return await self._call(lambda: self._api.validate(RequestContext(), token))

    async def open_session(self, session: Session, token: str) -> objects.ConsoleSession:
        """Open a session; for one that is open, ask again whether its console may be connected.

        :raises ConsoledException: as ``ConsoleAuthAPI.open_session``
        :raises ProxyBusy: when too many calls are pending
        :raises ManagerUnreachable: when there is no lease, it was lost meanwhile, or no answer came in time
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
        # If the lease has lapsed since the call, another session may have the slot of this one.
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
        """Make a call in a thread, and wait ``timeout`` seconds at most for its result.

        :param late: called with the result if the call returns after its caller has stopped waiting
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
            # Not wait_for: before Python 3.12, it can swallow a cancellation that coincides with the answer.
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
    """Return whether the session was certainly not opened."""
    if isinstance(error, exception.ProxyBusy):  # no manager was asked
        return True
    return isinstance(error, exception.ConsoledException) and error.http_status < 500


def _timed(method: Callable[..., T], *values: Any) -> tuple[T, float]:
    """Return the result of a call and when it was sent, which may be long after it was submitted.

    The context is created here, in the thread of the call: in the event loop's thread, oslo.log would add its
    request id to the log lines of all sessions.
    """
    asked_at = time.monotonic()
    return method(RequestContext(), *values), asked_at


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *values: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(function, *values)


def _deliver_late(
    loop: asyncio.AbstractEventLoop, late: Callable[[T], None], future: futures.Future[T]
) -> None:
    """Pass the result of a successful call to ``late``. Runs in the thread of the call."""
    if not future.cancelled() and future.exception() is None:
        _call_soon(loop, late, future.result())


def _retrieve_error(answer: asyncio.Future[Any]) -> None:
    """Keep asyncio from logging the error of a call whose caller has stopped waiting."""
    if not answer.cancelled():
        answer.exception()
