# SPDX-License-Identifier: Apache-2.0
"""``[workarounds] enable_consoleauth``: serving the old consoleauth service's tokens and callers.

``consoled.legacy`` is imported only while the option is on.
"""

from __future__ import annotations

import contextlib
import logging
import threading

import oslo_messaging
from oslo_config import cfg

from consoled.manager.manager import ConsoleAuthManager
from consoled.rpc import starting
from consoled.sources import TokenSource

LOG = logging.getLogger(__name__)


def check_conf(conf: cfg.ConfigOpts) -> None:
    """Check what ``[workarounds] enable_consoleauth`` needs, if it is on.

    :raises ValueError: a library is missing, or the options of ``[cache]`` or of the bus are wrong
    """
    if not conf.workarounds.enable_consoleauth:
        return
    try:
        from consoled.legacy import setup
    except ImportError as exc:
        raise ValueError(
            f'[workarounds] enable_consoleauth needs {exc.name}, which is not installed: pip install '
            'consoled[legacy]'
        ) from None
    setup.source_from_conf(conf)
    setup.check_bus(conf)


class LegacyBridge:
    """Serves the old service's tokens and callers while the option says so.

    :param sources: token sources of the endpoint; the bridge adds the old service's while the option is on
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        transport: oslo_messaging.RPCTransport,
        endpoint: ConsoleAuthManager,
        sources: list[TokenSource],
    ) -> None:
        self._conf = conf
        self._transport = transport
        self._endpoint = endpoint
        self._sources = sources
        self._source: TokenSource | None = None
        self._resources = contextlib.ExitStack()
        self._ended = False
        self._lock = threading.Lock()  # held while the bridge waits for a bus that refuses it
        self._abandoned = threading.Event()  # ends that wait

    def follow(self) -> threading.Thread:
        """Start a thread that switches the bridge on or off as the option says now.

        The thread is for eventlet: its launcher handles no signal until ``reset`` returns, and one that
        arrives meanwhile would end the worker.
        """
        if not self._conf.workarounds.enable_consoleauth:
            self._abandoned.set()
        thread = threading.Thread(target=self._follow, name='legacy-bridge', daemon=True)
        thread.start()
        return thread

    def end(self) -> None:
        """Stop answering old callers. Calls in flight still find the old service's tokens."""
        self._ended = True
        self._abandoned.set()
        with self._lock:
            self._resources.close()

    def _follow(self) -> None:
        with self._lock:
            self._abandoned.clear()
            wanted = self._conf.workarounds.enable_consoleauth
            try:
                if wanted and self._source is None and not self._ended:
                    self._begin()
                elif self._source is not None and not wanted:
                    self._stop()
            except starting.Abandoned:
                LOG.info('[workarounds] enable_consoleauth was switched off while the bus refused it')
            except Exception:
                # A failure here must not affect the calls of the cell.
                LOG.exception('Could not apply [workarounds] enable_consoleauth')

    def _begin(self) -> None:
        from consoled.legacy import setup

        self._source = setup.source_from_conf(self._conf, self._endpoint.observe_lookup)
        self._sources.append(self._source)
        try:
            setup.start_server(self._conf, self._transport, self._endpoint, self._resources, self._abandoned)
        except Exception:
            self._stop()
            raise

    def _stop(self) -> None:
        self._resources.close()
        if self._source is not None:
            self._sources.remove(self._source)
        self._source = None
