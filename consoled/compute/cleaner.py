# SPDX-License-Identifier: Apache-2.0
"""Periodic deletion of the expired tokens of this host."""

from __future__ import annotations

import logging
import threading

from oslo_config import cfg

from consoled import backoff, exception
from consoled.context import RequestContext
from consoled.rpc.client import ConsoleAuthAPI

LOG = logging.getLogger(__name__)


class Cleaner:
    """Asks a manager every ``[compute] clean_interval`` to delete them, in a thread of its own.

    This is a cast: if one is lost, the next one does the work.
    """

    def __init__(self, conf: cfg.ConfigOpts, manager: ConsoleAuthAPI) -> None:
        self._conf = conf
        self._manager = manager
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name='cleaner', daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the thread; wait for at most ``timeout`` seconds for the cast under way."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        # a random moment of the first interval: hosts that start together do not clean together
        delay = backoff.anywhere(self._conf.compute.clean_interval)
        while not self._stopped.wait(delay):
            self.clean()
            delay = backoff.jittered(self._conf.compute.clean_interval)

    def clean(self) -> None:
        """Ask once. Failures are logged."""
        try:
            self._manager.clean_expired_console_auths_for_host(RequestContext(), self._conf.host)
        except exception.ConsoledException as exc:
            LOG.warning('Could not delete the expired tokens of this host: %s', exc)
        except Exception:  # a fault here must not end the thread
            LOG.exception('Could not delete the expired tokens of this host')
