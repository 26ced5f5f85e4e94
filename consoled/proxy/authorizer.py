# SPDX-License-Identifier: Apache-2.0
"""The proxy's side of the contract with the managers: opening, closing, and the lease.

The RPC client blocks, so calls are made in threads. Nobody waits for a thread longer than for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

from consoled import backoff, exception
from consoled.context import RequestContext
from consoled.proxy import close_codes
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.replies import Closing, LeaseGrant

LOG = logging.getLogger(__name__)

_RETRY = 1.0  # seconds before a call that failed is made again
_MARGIN = 0.1  # of the lease: what is left of it when limited sessions are cut
_LIST_EVERY = 5  # renewals between two that name all live sessions
_LIST_SOON = 3  # the same after an open whose outcome is not known: a row must have some age to be deleted
_MOST_AT_ONCE = 500  # closings in a call


@dataclasses.dataclass(frozen=True)
class Lease:
    """What a proxy was granted.

    :param until: when it ends on the clock of the event loop, counted from before the request left
    :param now: the database's time when it was granted
    """

    seconds: float
    until: float
    now: str


@dataclasses.dataclass(frozen=True)
class Granted:
    """The managers' yes to an open.

    :param session: the ConsoleSession
    :param asked: when the request left, by the monotonic clock
    """

    session: Any
    asked: float


class Authorizer:
    """Asks the managers, holds the lease, reports closings until they are acknowledged.

    :param name: of this process among the proxies of the cell
    :param live: ids of the sessions that are alive in this process
    :param cut: told of sessions to end: reasons by id
    :param cut_limited: told to end all limited sessions: the lease can't be renewed
    :param cut_all: told to end all sessions: the managers do not know them any more
    """

    def __init__(
        self,
        api: ConsoleAuthAPI,
        name: str,
        *,
        timeout: float,
        threads: int,
        max_pending: int,
        live: Callable[[], Iterable[str]],
        cut: Callable[[dict[str, str]], None],
        cut_limited: Callable[[], None],
        cut_all: Callable[[], None],
    ) -> None:
        self._api = api
        self._name = name
        self._timeout = timeout
        self._live = live
        self._cut = cut
        self._cut_limited = cut_limited
        self._cut_all = cut_all
        self._max_pending = max_pending
        self._opens = futures.ThreadPoolExecutor(threads, thread_name_prefix='open')
        # of their own: opens that hang must not keep the lease from being renewed, nor ports from coming free
        self._renewals = futures.ThreadPoolExecutor(1, thread_name_prefix='renew')
        self._closings = futures.ThreadPoolExecutor(1, thread_name_prefix='close')
        self._proxy_id = str(uuid.uuid4())
        self._registered = False
        self._lease: Lease | None = None
        self._lapses = 0  # how often a lease has ended without a new one
        self._opening: dict[str, str | None] = {}  # by session id: why it was cut meanwhile
        self._asked = 0  # calls of opens under way
        self._closed: dict[str, dict[str, Any]] = {}  # not acknowledged yet, by session id
        self._more_closed = asyncio.Event()
        self._until_list = _LIST_EVERY  # renewals
        self._wake = asyncio.Event()  # look after the lease now
        self._tasks: list[asyncio.Task[None]] = []
        self._fence: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to hold a lease; it is there when ``ready`` says so."""
        self._loop = asyncio.get_running_loop()
        self._tasks = [
            self._loop.create_task(self._hold_lease(), name='lease'),
            self._loop.create_task(self._report_closings(), name='closings'),
        ]

    @property
    def ready(self) -> bool:
        """Whether the lease holds, so that sessions can be opened."""
        return self._registered and self._lease is not None and self._loop.time() < self._lease.until

    async def stop(self, timeout: float) -> None:
        """Report the closings that are left, for ``timeout`` seconds at most, and end."""
        deadline = self._loop.time() + timeout
        while self._closed and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        if self._closed:
            LOG.warning('%d closings were not acknowledged: the lease will end them', len(self._closed))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._fence is not None:
            self._fence.cancel()
        for pool in (self._opens, self._renewals, self._closings):
            pool.shutdown(wait=False, cancel_futures=True)

    # opening and closing

    async def open(self, token: str, session_id: str, client_address: str | None) -> Granted:
        """Open a session, or ask again whether one that was opened may still be connected.

        :raises ConsoledException: as ``ConsoleAuthAPI.open_session``, and ProxyBusy
        """
        if not self.ready:
            raise exception.ManagerUnreachable(reason='this proxy has no lease')
        lapses = self._lapses
        self._opening[session_id] = None
        try:
            call = functools.partial(
                _timed_call,
                self._api.open_session,
                token,
                session_id,
                self._proxy_id,
                client_address,
            )
            # a session that was opened after its user had gone would hold its port until the lease ends
            granted: Granted = await self._ask(
                call, late=lambda _: self.close(session_id, close_codes.OPEN_FAILED)
            )
            session = granted.session
            # the place of one that was opened before the lease ended may be somebody else's by now
            kept = not session.limited or (self.ready and lapses == self._lapses)
            if session.proxy_id != self._proxy_id or not kept:
                raise exception.ManagerUnreachable(reason='the lease was lost meanwhile')
            session.cut_reason = session.cut_reason or self._opening[session_id]
            return granted
        except BaseException as exc:
            if isinstance(exc, exception.ProxyUnknown):
                self._wake.set()
            if not _was_refused(exc):
                self.close(session_id, close_codes.OPEN_FAILED)
                # the close may come before an open that is carried out late: only a list finds that one
                self._until_list = min(self._until_list or _LIST_EVERY, _LIST_SOON)
            raise
        finally:
            del self._opening[session_id]

    def cut_opening(self, reasons: dict[str, str]) -> None:
        """Hear of sessions to cut whose opening has not been answered yet: reasons by id."""
        for session_id in self._opening.keys() & reasons.keys():
            self._opening[session_id] = reasons[session_id]

    async def validate(self, token: str) -> Any:
        """The ConsoleAuthToken of a token; errors as ``ConsoleAuthAPI.validate``, and ProxyBusy."""
        return await self._ask(functools.partial(_with_context, self._api.validate, token))

    async def _ask(self, call: Callable[[], Any], late: Callable[[Any], None] | None = None) -> Any:
        """Call in a thread, for ``timeout`` seconds at most.

        :param late: told of what a call returns that nobody waited for any more
        """
        if self._asked >= self._max_pending:
            raise exception.ProxyBusy()
        self._asked += 1
        future = self._opens.submit(call)
        future.add_done_callback(lambda _: self._call_soon(self._answered))
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(_looked_at)
        try:
            # not wait_for: until Python 3.12 it takes no notice of a user who leaves as the answer comes
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(answer)
        except (TimeoutError, asyncio.CancelledError) as exc:
            if not future.cancel() and late is not None:
                future.add_done_callback(functools.partial(self._came_late, late))
            if isinstance(exc, TimeoutError):
                raise exception.ManagerUnreachable(reason='no answer in time') from None
            raise

    def _answered(self) -> None:
        self._asked -= 1

    def _came_late(self, late: Callable[[Any], None], future: futures.Future[Any]) -> None:
        """In the call's thread."""
        if not future.cancelled() and future.exception() is None:
            self._call_soon(late, future.result())

    def _call_soon(self, function: Callable[..., None], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *values)

    def close(self, session_id: str, reason: str, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Report a session as over, until a manager has acknowledged it."""
        self._closed[session_id] = {
            'session_id': session_id,
            'reason': reason,
            'bytes_in': bytes_in,
            'bytes_out': bytes_out,
        }
        self._more_closed.set()

    async def _report_closings(self) -> None:
        while True:
            await self._more_closed.wait()
            self._more_closed.clear()
            while self._closed:
                # those that have come together go together
                batch = list(self._closed.values())[:_MOST_AT_ONCE]
                try:
                    await self._loop.run_in_executor(self._closings, self._report, batch)
                except Exception as exc:
                    LOG.warning('closings could not be reported: %s', exc)
                    await asyncio.sleep(_RETRY)
                    continue
                for report in batch:
                    if self._closed.get(report['session_id']) is report:
                        del self._closed[report['session_id']]

    def _report(self, batch: list[dict[str, Any]]) -> None:
        if len(batch) == 1:
            self._api.close_session(RequestContext(), Closing(**batch[0]))
            return
        with contextlib.suppress(exception.ProxyUnknown):  # its sessions are over with it
            self._api.renew_lease(
                RequestContext(), self._proxy_id, closed=[Closing(**report) for report in batch]
            )

    # the lease

    async def _hold_lease(self) -> None:
        while True:
            try:
                if self._registered:
                    self._until_list = (self._until_list or _LIST_EVERY) - 1
                    await self._renew(with_sessions=self._until_list == 0)
                else:
                    await self._register()
            except exception.ProxyUnknown:
                LOG.warning('the managers do not know this proxy any more: it registers anew')
                self._forget()
                continue
            except Exception as exc:
                LOG.warning('the lease could not be renewed: %s', exc)
                await asyncio.sleep(_RETRY)
                continue
            await self._pause()

    async def _pause(self) -> None:
        seconds = backoff.jittered(self._lease.seconds / 3) if self._lease else 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _register(self) -> None:
        asked = self._loop.time()
        call = functools.partial(_with_context, self._api.register_proxy, self._proxy_id, self._name)
        self._granted(asked, await self._loop.run_in_executor(self._renewals, call))
        self._registered = True
        LOG.info('proxy %s registered as %s', self._name, self._proxy_id)

    async def _renew(self, *, with_sessions: bool) -> None:
        named: dict[str, Any] = {}
        opening: set[str] = set()
        if with_sessions and self._lease is not None:
            opening = set(self._opening)
            named = {'sessions': [*self._live(), *opening], 'as_of': self._lease.now}
        asked = self._loop.time()
        call = functools.partial(_with_context, self._api.renew_lease, self._proxy_id, **named)
        reply = await self._loop.run_in_executor(self._renewals, call)
        self._granted(asked, reply)
        # the managers may have compared before one that was being opened had its row
        self._cut(
            {
                session_id: reason
                for session_id, reason in reply.cut.items()
                if session_id not in opening or reason != close_codes.LEASE_LOST
            }
        )

    def _granted(self, asked: float, reply: LeaseGrant) -> None:
        seconds = float(reply.lease)
        self._lease = Lease(seconds, asked + seconds, reply.now)
        if self._fence is not None:
            self._fence.cancel()
        self._fence = self._loop.call_at(self._lease.until - seconds * _MARGIN, self._fenced)

    def _fenced(self) -> None:
        """End limited sessions before the managers give away their places (DESIGN invariant 4)."""
        LOG.error('the lease could not be renewed in time: limited sessions are cut')
        self._lease = None
        self._lapses += 1
        self._cut_limited()

    def _forget(self) -> None:
        self._registered = False
        self._lease = None
        self._proxy_id = str(uuid.uuid4())
        self._cut_all()


def _was_refused(error: BaseException) -> bool:
    """Whether a session was surely not opened."""
    if isinstance(error, exception.ProxyBusy):  # nobody was asked
        return True
    return isinstance(error, exception.ConsoledException) and error.http_status < 500


def _looked_at(answer: asyncio.Future[Any]) -> None:
    """An error that comes when nobody waits for it any more is none to log."""
    if not answer.cancelled():
        answer.exception()


def _timed_call(method: Callable[..., Any], *values: Any) -> Granted:
    asked = time.monotonic()  # by now, not before: the call may have waited for its thread
    return Granted(_with_context(method, *values), asked)


def _with_context(method: Callable[..., Any], *values: Any, **more: Any) -> Any:
    """Make a call under a request id of its own, which the log of this thread then shows.

    In the event loop's thread it would be shown in the lines of all sessions.
    """
    return method(RequestContext(), *values, **more)
