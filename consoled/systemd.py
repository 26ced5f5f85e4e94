# SPDX-License-Identifier: Apache-2.0
"""Service state notifications to systemd: sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping


class Notifier:
    """Notifies the service manager, if there is one.

    :param address: path of its socket; a leading @ stands for the abstract namespace
    :param watchdog: seconds within which the service manager expects ``alive``; None if it expects none
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self._address = address
        self.interval = None if watchdog is None else watchdog / 3  # seconds between two calls of ``alive``

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Return a notifier as systemd has set the environment up.

        The variables are removed from ``environ``, so that no library notifies systemd itself.
        """
        address = environ.pop('NOTIFY_SOCKET', None)
        usec = environ.pop('WATCHDOG_USEC', '')
        environ.pop('WATCHDOG_PID', None)
        return cls(address, int(usec) / 1e6 if usec.isdecimal() and int(usec) else None)

    def ready(self) -> None:
        """Report that the service works. Each worker does; the first report counts."""
        self._send(b'READY=1')

    def alive(self) -> None:
        """Report that the service does not hang."""
        self._send(b'WATCHDOG=1')

    def _send(self, state: bytes) -> None:
        if self._address is None:
            return
        address = '\0' + self._address[1:] if self._address.startswith('@') else self._address
        # A service manager that no longer listens is no reason to fail.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(state, address)


def from_process_environ() -> Notifier:
    """Return a notifier as systemd has set this process up."""
    return Notifier.from_environ(os.environ)
