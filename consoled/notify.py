# SPDX-License-Identifier: Apache-2.0
"""Telling systemd how a service is, by its protocol for that: sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping


class Notifier:
    """Speaks to the service manager, if there is one.

    :param address: of its socket; a leading @ stands for the abstract namespace
    :param watchdog: seconds within which it wants to hear ``alive``; None: never
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self._address = address
        self.interval = None if watchdog is None else watchdog / 3  # seconds between two signs of life

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Take the variables that systemd has set, so that no library says something in our place."""
        address = environ.pop('NOTIFY_SOCKET', None)
        usec = environ.pop('WATCHDOG_USEC', '')
        environ.pop('WATCHDOG_PID', None)
        return cls(address, int(usec) / 1e6 if usec.isdigit() and int(usec) else None)

    def ready(self) -> None:
        """The service works. Said by each worker; the first one counts."""
        self._send(b'READY=1')

    def alive(self) -> None:
        """The service has not hung."""
        self._send(b'WATCHDOG=1')

    def _send(self, state: bytes) -> None:
        if self._address is None:
            return
        address = '\0' + self._address[1:] if self._address.startswith('@') else self._address
        # nobody listens any more: no reason to fail
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(state, address)


def of_this_process() -> Notifier:
    """What systemd has told this process."""
    return Notifier.taken_from(os.environ)
