# SPDX-License-Identifier: Apache-2.0
"""Asynchronous client for the managers: makes blocking RPC calls in a bounded number of threads.

The timeout of a call includes the time that it waits for its turn and for a thread. A token and a client have
few calls at a time: calls that hang, and users who ask again and again, must not take the threads of others.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, TypeVar

from consoled import exception, objects
from consoled import token as tokens
from consoled.context import RequestContext
from consoled.proxy.close_reports import CloseReports
from consoled.proxy.keyed_permits import KeyedPermits
from consoled.proxy.lease import Lease
from consoled.proxy.limits import client_site
from consoled.proxy.session import Session, State
from consoled.rpc.client import ConsoleAuthAPI

T = TypeVar('T')

_CALLS_OF_TOKEN = 2  # at a time: one that was lost must not keep a page that is reloaded waiting
_DOUBTFUL_THREADS = 2
_TURN_RETRY = 5.0  # seconds until a client whose turn did not come should try again

Turn = tuple[KeyedPermits, str]


class _Pool:
    """Threads for calls.

    :ivar pending: calls in progress or waiting for a thread
    """

    def __init__(self, threads: int, max_pending: int, name: str) -> None:
        self.threads = futures.ThreadPoolExecutor(threads, thread_name_prefix=name)
        self.pending = 0
        self._max_pending = max_pending

    def submit(self, call: Callable[[], T]) -> futures.Future[T]:
        """Make a call in a thread. The caller must decrement ``pending`` when it has returned.

        :raises ProxyBusy: when too many calls are pending
        """
        if self.pending >= self._max_pending:
            raise exception.ProxyBusy()
        future = self.threads.submit(call)
        self.pending += 1
        return future

    def stop(self) -> None:
        """Make no further calls. Calls in progress are abandoned."""
        self.threads.shutdown(wait=False, cancel_futures=True)


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
        self._opens = _Pool(threads, max_pending, 'open')
        self._doubtful = _Pool(_DOUBTFUL_THREADS, max_pending, 'doubtful')
        self._by_token = KeyedPermits(_CALLS_OF_TOKEN)
        self._by_client = KeyedPermits(max(1, threads // 2))
        self._doubtful_by_client = KeyedPermits(1)

    def stop(self) -> None:
        """Make no further calls. Calls in progress are abandoned."""
        self._opens.stop()
        self._doubtful.stop()

    async def validate(self, token: str, client_address: str | None) -> objects.ConsoleAuthToken:
        """Return the console and the user that a token authorizes.

        :raises ConsoledException: as ``ConsoleAuthAPI.validate``
        :raises ProxyBusy: when too many calls are pending
        :raises RateLimited: when too many calls of this token or client are
        :raises ManagerUnreachable: when there is no answer in time
        """
        return await self._call(
            lambda: self._api.validate(RequestContext(), token), self._turns(token, client_address)
        )

    async def validate_doubtful(self, token: str, client_address: str | None) -> objects.ConsoleAuthToken:
        """Return the same for a token that is probably invalid, or in no hurry.

        Such calls have threads of their own, and a client has one of them at a time.

        :raises ConsoledException: as ``validate``
        """
        return await self._call(
            lambda: self._api.validate(RequestContext(), token),
            [(self._doubtful_by_client, client_site(client_address))],
            pool=self._doubtful,
        )

    async def validate_to_open(
        self, token: str, client_address: str | None, serial_port: int | None
    ) -> objects.ConsoleAuthToken:
        """Return the same, unless a session could not be opened now; in no hurry.

        :param serial_port: number of the serial port that the user has chosen; None for the token's own
        :raises ConsoledException: as ``ConsoleAuthAPI.validate`` with ``to_open``
        """
        return await self._call(
            lambda: self._validate_to_open(token, serial_port),
            [(self._doubtful_by_client, client_site(client_address))],
            pool=self._doubtful,
        )

    def _validate_to_open(self, token: str, serial_port: int | None) -> objects.ConsoleAuthToken:
        try:
            return self._api.validate(RequestContext(), token, to_open=True, serial_port=serial_port)
        except (exception.InternalError, exception.InvalidArgument):  # a manager that speaks 1.0
            return self._api.validate(RequestContext(), token)

    async def open_session(self, session: Session, token: str) -> objects.ConsoleSession:
        """Open a session; for one that is open, ask again whether its console may be connected.

        :raises ConsoledException: as ``ConsoleAuthAPI.open_session``
        :raises ProxyBusy: when too many calls are pending
        :raises RateLimited: when too many calls of this token or client are
        :raises ManagerUnreachable: when there is no lease, it was lost meanwhile, or no answer came in time
        """
        lease = self._lease
        if not lease.holds:
            raise exception.ManagerUnreachable(reason='this proxy has no lease')
        proxy_id, epoch = lease.proxy_id, lease.epoch
        repeated = session.may_be_stored

        def sent() -> None:
            session.may_be_stored = True

        def call() -> tuple[objects.ConsoleSession, float]:
            return _timed(
                self._api.open_session,
                token,
                session.id,
                proxy_id,
                session.client_address,
                session.serial_port,
            )

        granted: objects.ConsoleSession
        try:
            granted, asked_at = await self._call(
                call,
                self._turns(token, session.client_address),
                sent=sent,
                late=functools.partial(self._answered_late, session),
            )
        except BaseException as exc:
            if isinstance(exc, exception.ProxyUnknown):
                lease.renew_soon()
            if _was_refused(exc):
                session.may_be_stored = repeated
            elif session.may_be_stored:
                lease.list_soon()
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

    def _turns(self, token: str, client_address: str | None) -> list[Turn]:
        """Return the permits that a call for a user needs."""
        turns = [(self._by_token, tokens.hashed(token))]
        if client_address is not None:
            turns.append((self._by_client, client_site(client_address)))
        return turns

    async def _call(
        self,
        call: Callable[[], T],
        turns: Sequence[Turn],
        *,
        pool: _Pool | None = None,
        sent: Callable[[], None] | None = None,
        late: Callable[[T], None] | None = None,
    ) -> T:
        """Make a call in a thread, and wait ``timeout`` seconds at most for its result.

        :param pool: by default that of the opens
        :param turns: permits that it needs, and holds until it returns, even if nobody waits for it any more
        :param sent: called when its turn has come
        :param late: called with the result if the call returns after its caller has stopped waiting
        """
        pool = pool or self._opens
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        await _acquire_all(turns, deadline)
        try:
            if sent is not None:
                sent()
            future = pool.submit(call)
        except BaseException:
            _release_all(turns)
            raise
        future.add_done_callback(lambda _: _call_soon(loop, _done, pool, turns))
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(_retrieve_error)
        try:
            # Not wait_for: before Python 3.12, it can swallow a cancellation that coincides with the answer.
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(answer)
        except (TimeoutError, asyncio.CancelledError) as exc:
            if not future.cancel() and late is not None:
                future.add_done_callback(functools.partial(_deliver_late, loop, late))
            if isinstance(exc, TimeoutError):
                raise exception.ManagerUnreachable(reason='no answer in time') from None
            raise


def _done(pool: _Pool, turns: Sequence[Turn]) -> None:
    pool.pending -= 1
    _release_all(turns)


async def _acquire_all(turns: Sequence[Turn], deadline: float) -> None:
    """Acquire permits, all or none.

    :raises RateLimited: when that takes until the deadline, a time of the event loop
    """
    held: list[Turn] = []
    try:
        async with asyncio.timeout_at(deadline):
            for permits, key in turns:
                await permits.acquire(key)
                held.append((permits, key))
    except BaseException as exc:
        _release_all(held)
        if isinstance(exc, TimeoutError):
            raise exception.RateLimited(seconds=_TURN_RETRY) from None
        raise


def _release_all(turns: Sequence[Turn]) -> None:
    for permits, key in turns:
        permits.release(key)


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
