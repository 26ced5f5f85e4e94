# SPDX-License-Identifier: Apache-2.0
"""The demo's proxy, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import oslo_messaging
import prometheus_client
from oslo_config import cfg

from consoled import exception
from consoled.proxy import listener, server
from consoled.proxy.pages import Pages

_START = 30.0  # seconds
_STOP = 5.0
_POLL = 0.02


class ProxyThread:
    """A whole proxy, its event loop in a thread.

    :raises OSError: its port is taken
    """

    def __init__(self, conf: cfg.ConfigOpts, transport: oslo_messaging.RPCTransport, name: str) -> None:
        self._conf = conf
        self._transport = transport
        self._name = name
        self._sockets = listener.bind_sockets(conf)
        self.place = '{}:{}'.format(*self._sockets[0].getsockname()[:2])
        self.url = f'http://{self.place}/'
        self.pages: Pages | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()

    def start(self, stopped: Callable[[], bool]) -> None:
        """Start it, and wait until it can open sessions.

        :param stopped: whether nobody wants that any more
        :raises ManagerUnreachable: it can't
        """
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name='proxy', daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START
        while not self._ready.wait(_POLL) and not stopped():
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise exception.ManagerUnreachable(reason='the proxy got no lease')

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self.pages = Pages.from_conf(self._conf)
        proxy = server.Proxy(
            self._conf,
            self._sockets,
            self._transport,
            self._name,
            self.pages,
            prometheus_client.CollectorRegistry(),
        )
        proxy.start()
        while not (proxy.ready or self._stopping.is_set()):
            await asyncio.sleep(_POLL)
        self._ready.set()
        await self._stopping.wait()
        await proxy.stop(_STOP)

    def stop(self) -> None:
        """Cut its sessions and end it."""
        if self._thread is None or not hasattr(self, '_loop'):
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(2 * _STOP)
