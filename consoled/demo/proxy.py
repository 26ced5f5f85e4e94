# SPDX-License-Identifier: Apache-2.0
"""The proxy of the demo, in a thread."""

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

_START_TIMEOUT = 30.0  # seconds
_STOP_TIMEOUT = 5.0
_POLL_INTERVAL = 0.02


class ProxyThread:
    """A complete proxy with its event loop in a thread.

    :raises OSError: its port is taken
    :ivar address: host and port, as in a URL
    :ivar pages: the console pages, once it has started
    """

    def __init__(self, conf: cfg.ConfigOpts, transport: oslo_messaging.RPCTransport, name: str) -> None:
        self._conf = conf
        self._transport = transport
        self._name = name
        self._sockets = listener.bind_sockets(conf)
        self.address = '{}:{}'.format(*self._sockets[0].getsockname()[:2])
        self.url = f'http://{self.address}/'
        self.pages: Pages | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()

    def start(self, stopped: Callable[[], bool]) -> None:
        """Start the proxy, and wait until it can open sessions.

        :param stopped: returns whether to stop waiting
        :raises ManagerUnreachable: it got no lease from the manager in time
        """
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name='proxy', daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._ready.wait(_POLL_INTERVAL) and not stopped():
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
            await asyncio.sleep(_POLL_INTERVAL)
        self._ready.set()
        await self._stopping.wait()
        await proxy.stop(_STOP_TIMEOUT)

    def stop(self) -> None:
        """Close the sessions and end the thread."""
        if self._thread is None or not hasattr(self, '_loop'):
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(2 * _STOP_TIMEOUT)
