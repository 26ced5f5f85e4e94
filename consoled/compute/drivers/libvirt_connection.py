# SPDX-License-Identifier: Apache-2.0
"""Connections to libvirtd that reconnect by themselves, and libvirt's event loop."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from consoled import backoff, exception
from consoled.compute.drivers.libvirt_types import Connection, EventCallback, Library

LOG = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5  # seconds before the second attempt to connect; doubles with each failure, up to
_LONGEST_PAUSE = 15.0

# libvirt's client sends a request after so many seconds of silence, and gives up after so many requests
# without a response. Calls under way fail then.
_KEEPALIVE_INTERVAL = 5
_KEEPALIVE_COUNT = 2


class EventLoop:
    """libvirt's event loop, in a thread. There is one for the process, and it never ends."""

    _lock = threading.Lock()
    _started: ClassVar[list[Library]] = []

    @classmethod
    def start(cls, library: Library) -> None:
        """Start the loop if it does not run yet. Must be called before the first connection is opened."""
        with cls._lock:
            if library in cls._started:
                return
            # without a handler libvirt also prints the errors that it raises
            library.registerErrorHandler(lambda context, error: None, None)
            library.virEventRegisterDefaultImpl()
            threading.Thread(target=cls._run, args=(library,), name='libvirt-events', daemon=True).start()
            cls._started.append(library)

    @staticmethod
    def _run(library: Library) -> None:
        while True:
            try:
                library.virEventRunDefaultImpl()
            except library.libvirtError:
                LOG.exception("Error in libvirt's event loop")
                time.sleep(_FIRST_PAUSE)


class ConnectionPool:
    """One connection for events, maintained by a thread, and as many as are needed for calls.

    All are read-only. No two threads use the same connection at once: libvirt's documentation allows that,
    but its client crashes (seen with 9.0) if several threads wait at the moment when keep-alive gives up.
    Besides, a call that hangs does not delay the others.

    :param library: the Python module ``libvirt``
    :param events: ids of the domain events to register for, before the first call is made
    :param on_event: called for each of these events, by the event loop
    :param on_connect: called when calls are possible, for the first time or again
    """

    def __init__(
        self,
        library: Library,
        uri: str,
        events: Sequence[int],
        on_event: EventCallback,
        on_connect: Callable[[], None],
    ) -> None:
        self._library = library
        self._uri = uri
        self._events = events
        self._on_event = on_event
        self._on_connect = on_connect
        self._changed = threading.Condition()
        self._event_conn: Connection | None = (
            None  # while it is None, there are no connections for calls either
        )
        self._callback_ids: list[int] = []
        self._idle: list[Connection] = []
        self._failed = False  # the last attempt to connect
        self._closed = False
        self._thread: threading.Thread | None = None

    # connections for calls

    @contextlib.contextmanager
    def connection(self, timeout: float) -> Iterator[Connection]:
        """Provide a connection (virConnect) that no other thread uses.

        :param timeout: seconds to wait for an attempt to connect that is under way
        :raises HypervisorUnreachable: there is no connection to libvirtd
        :raises libvirtError: a new connection could not be opened
        """
        event_conn = self._wait_connected(timeout)
        conn = self._take_idle() or self._open()
        try:
            yield conn
        finally:
            if not self._give_back(conn, event_conn):
                self._close(conn)

    def _wait_connected(self, timeout: float) -> Connection:
        with self._changed:
            self._start()
            self._changed.wait_for(
                lambda: self._event_conn is not None or self._failed or self._closed, timeout
            )
            if self._event_conn is None:
                raise exception.HypervisorUnreachable()
            return self._event_conn

    def _take_idle(self) -> Connection | None:
        with self._changed:
            return self._idle.pop() if self._idle else None

    def _open(self) -> Connection:
        conn = self._library.openReadOnly(self._uri)
        self._enable_keepalive(conn)
        return conn

    def _give_back(self, conn: Connection, event_conn: Connection) -> bool:
        """Keep a connection for the next call.

        :returns: False if it is useless because libvirtd has gone since it was taken
        """
        alive = self._is_alive(conn)
        if not alive and not self._is_alive(event_conn):
            self._mark_lost(event_conn)
        with self._changed:
            if alive and self._event_conn is event_conn and not self._closed:
                self._idle.append(conn)
                return True
        return False

    def _is_alive(self, conn: Connection) -> bool:
        try:
            return bool(conn.isAlive())
        except self._library.libvirtError:
            return False

    def _close(self, conn: Connection) -> None:
        with contextlib.suppress(self._library.libvirtError):
            conn.close()

    # the connection for events

    def start(self) -> bool:
        """Start connecting, without waiting.

        :returns: whether there is already a connection
        """
        with self._changed:
            self._start()
            return self._event_conn is not None

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name='libvirt-connection', daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Close all connections that are not in use. A thread that hangs in libvirt is left alone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_FIRST_PAUSE)

    def _mark_lost(self, conn: Connection) -> None:
        with self._changed:
            if self._event_conn is conn:
                self._event_conn = None
                self._changed.notify_all()

    def _run(self) -> None:
        failures = 0
        while not self._closed:
            conn = self._connect()
            if conn is not None:
                failures = 0
                self._on_connect()
                self._wait_until_lost(conn)
                continue
            failures += 1
            with self._changed:
                pause = backoff.after(failures, _FIRST_PAUSE, _LONGEST_PAUSE)
                self._changed.wait_for(lambda: self._closed, pause)

    def _connect(self) -> Connection | None:
        """Open the connection for events; return None if that fails."""
        conn: Connection | None = None
        try:
            EventLoop.start(self._library)
            conn = self._library.openReadOnly(self._uri)
            conn.registerCloseCallback(self._on_close, None)
            self._enable_keepalive(conn)
            for event in self._events:
                self._callback_ids.append(conn.domainEventRegisterAny(None, event, self._on_event, None))
            LOG.info('Connected to libvirt at %s', self._uri)
        except Exception as exc:
            expected = isinstance(exc, self._library.libvirtError)
            LOG.warning(
                'Could not connect to libvirt at [compute] libvirt_uri = %s: %s',
                self._uri,
                exc,
                exc_info=not expected,
            )
            if conn is not None:
                self._dispose(conn)
            conn = None
        with self._changed:
            self._failed = conn is None
            self._event_conn = conn
            self._changed.notify_all()
        return conn

    def _enable_keepalive(self, conn: Connection) -> None:
        try:
            conn.setKeepAlive(_KEEPALIVE_INTERVAL, _KEEPALIVE_COUNT)
        except self._library.libvirtError as exc:
            if exc.get_error_code() != self._library.VIR_ERR_NO_SUPPORT:  # a hypervisor without a daemon
                raise

    def _on_close(self, conn: Connection, reason: int, opaque: object) -> None:
        """Handle the end of the connection for events, in the thread of libvirt's event loop."""
        LOG.warning('Lost connection to libvirt (reason %d)', reason)
        self._mark_lost(conn)

    def _wait_until_lost(self, conn: Connection) -> None:
        """Wait until the connection for events is lost, or the pool closed, and clean up."""
        with self._changed:
            self._changed.wait_for(lambda: self._event_conn is not conn or self._closed)
            self._event_conn = None
            idle, self._idle = self._idle, []
        for idle_conn in idle:
            self._close(idle_conn)
        self._dispose(conn)

    def _dispose(self, conn: Connection) -> None:
        """Unregister all callbacks of the connection for events and close it; it may be dead already."""
        deregistrations = [
            functools.partial(conn.domainEventDeregisterAny, callback_id)
            for callback_id in self._callback_ids
        ]
        self._callback_ids = []
        releases: list[Callable[[], object]] = [*deregistrations, conn.unregisterCloseCallback, conn.close]
        for release in releases:
            try:
                release()
            except self._library.libvirtError:  # the client has released it all the same
                LOG.debug('Could not release part of a connection to libvirt', exc_info=True)
