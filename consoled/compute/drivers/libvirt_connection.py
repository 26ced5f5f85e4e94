# SPDX-License-Identifier: Apache-2.0
"""Connections to libvirtd that come back by themselves, and libvirt's event loop."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from consoled import backoff, exception

LOG = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5  # seconds between two attempts to connect; doubles up to
_LONGEST_PAUSE = 15.0

# libvirtd is asked after so many seconds of silence, and is gone after so many questions without an answer.
# Calls that wait for it fail then.
_KEEPALIVE_INTERVAL = 5
_KEEPALIVE_COUNT = 2


class EventLoop:
    """libvirt's event loop, in a thread: one for the process, and it never ends."""

    _lock = threading.Lock()
    _started: ClassVar[list[Any]] = []

    @classmethod
    def start(cls, library: Any) -> None:
        """Start it, if it does not run yet. To be called before the first connection is opened."""
        with cls._lock:
            if library in cls._started:
                return
            # what goes wrong is raised as well; without this libvirt prints it
            library.registerErrorHandler(lambda context, error: None, None)
            library.virEventRegisterDefaultImpl()
            threading.Thread(target=cls._run, args=(library,), name='libvirt-events', daemon=True).start()
            cls._started.append(library)

    @staticmethod
    def _run(library: Any) -> None:
        while True:
            try:
                library.virEventRunDefaultImpl()
            except library.libvirtError:
                LOG.exception("libvirt's event loop")
                time.sleep(_FIRST_PAUSE)


class Connections:
    """One connection for events, kept by a thread of its own, and as many as are needed for calls.

    All are for reading only. No two threads make calls on one connection: libvirt's documentation allows it,
    but its client crashes (seen with 9.0) when several wait at the moment that keep-alive gives up. And
    a call that hangs keeps no other one waiting.

    :param library: libvirt's module
    :param events: ids of the domain events to ask for, before anybody makes a call
    :param happened: called with each such event, by the event loop
    :param opened: called when calls can be made, for the first time or again
    """

    def __init__(
        self,
        library: Any,
        uri: str,
        events: Sequence[int],
        happened: Callable[..., None],
        opened: Callable[[], None],
    ) -> None:
        self._library = library
        self._uri = uri
        self._events = events
        self._happened = happened
        self._opened = opened
        self._changed = threading.Condition()
        self._conn: Any = None  # the one for events; without it there are none for calls
        self._callbacks: list[int] = []
        self._idle: list[Any] = []
        self._failed = False  # the last attempt
        self._closed = False
        self._thread: threading.Thread | None = None

    # calls

    @contextlib.contextmanager
    def use(self, timeout: float) -> Iterator[Any]:
        """A connection (virConnect) for calls of this thread.

        :param timeout: seconds to wait for an attempt to connect that is under way
        :raises HypervisorUnreachable: there is none
        :raises libvirtError: it could not be opened
        """
        events = self._wait(timeout)
        conn = self._take() or self._open()
        try:
            yield conn
        finally:
            if not self._put_back(conn, events):
                self._close(conn)

    def _wait(self, timeout: float) -> Any:
        with self._changed:
            self._start()
            self._changed.wait_for(lambda: self._conn is not None or self._failed or self._closed, timeout)
            if self._conn is None:
                raise exception.HypervisorUnreachable()
            return self._conn

    def _take(self) -> Any:
        with self._changed:
            return self._idle.pop() if self._idle else None

    def _open(self) -> Any:
        conn = self._library.openReadOnly(self._uri)
        self._keep_alive(conn)
        return conn

    def _put_back(self, conn: Any, events: Any) -> bool:
        """Keep a connection for the next call, unless libvirtd has gone since it was taken."""
        alive = self._is_alive(conn)
        if not alive and not self._is_alive(events):
            self._lost(events)
        with self._changed:
            if alive and self._conn is events and not self._closed:
                self._idle.append(conn)
                return True
        return False

    def _is_alive(self, conn: Any) -> bool:
        try:
            return bool(conn.isAlive())
        except self._library.libvirtError:
            return False

    def _close(self, conn: Any) -> None:
        with contextlib.suppress(self._library.libvirtError):
            conn.close()

    # the one for events

    def start(self) -> bool:
        """Connect, without waiting for it.

        :returns: whether there is a connection already
        """
        with self._changed:
            self._start()
            return self._conn is not None

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name='libvirt-connection', daemon=True)
            self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_FIRST_PAUSE)  # one that hangs is left to itself

    def _lost(self, conn: Any) -> None:
        with self._changed:
            if self._conn is conn:
                self._conn = None
                self._changed.notify_all()

    def _run(self) -> None:
        failures = 0
        while not self._closed:
            conn = self._connect()
            if conn is not None:
                failures = 0
                self._opened()
                self._wait_until_lost(conn)
                continue
            failures += 1
            with self._changed:
                pause = backoff.after(failures, _FIRST_PAUSE, _LONGEST_PAUSE)
                self._changed.wait_for(lambda: self._closed, pause)

    def _connect(self) -> Any:
        conn = None
        try:
            EventLoop.start(self._library)
            conn = self._library.openReadOnly(self._uri)
            conn.registerCloseCallback(self._ended, None)
            self._keep_alive(conn)
            for event in self._events:
                self._callbacks.append(conn.domainEventRegisterAny(None, event, self._happened, None))
            LOG.info('connected to libvirt at %s', self._uri)
        except Exception as exc:
            expected = isinstance(exc, self._library.libvirtError)
            LOG.warning('libvirt at %s can not be reached: %s', self._uri, exc, exc_info=not expected)
            if conn is not None:
                self._let_go(conn)
            conn = None
        with self._changed:
            self._failed = conn is None
            self._conn = conn
            self._changed.notify_all()
        return conn

    def _keep_alive(self, conn: Any) -> None:
        try:
            conn.setKeepAlive(_KEEPALIVE_INTERVAL, _KEEPALIVE_COUNT)
        except self._library.libvirtError as exc:
            if exc.get_error_code() != self._library.VIR_ERR_NO_SUPPORT:  # a hypervisor without a daemon
                raise

    def _ended(self, conn: Any, reason: int, opaque: Any) -> None:
        """Called by the event loop."""
        LOG.warning('the connection to libvirt has ended (reason %d)', reason)
        self._lost(conn)

    def _wait_until_lost(self, conn: Any) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._conn is not conn or self._closed)
            self._conn = None
            idle, self._idle = self._idle, []
        for each in idle:
            self._close(each)
        self._let_go(conn)

    def _let_go(self, conn: Any) -> None:
        takings = [functools.partial(conn.domainEventDeregisterAny, each) for each in self._callbacks]
        self._callbacks = []
        for take_back in (*takings, conn.unregisterCloseCallback, conn.close):
            try:
                take_back()
            except self._library.libvirtError:  # it is gone here all the same
                LOG.debug('letting go of a connection to libvirt', exc_info=True)
