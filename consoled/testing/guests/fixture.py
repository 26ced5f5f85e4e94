# SPDX-License-Identifier: Apache-2.0
"""Fixture that runs fake guests.

It is a module of its own because the demo runs guests without the ``fixtures`` library.
"""

from __future__ import annotations

from consoled.testing.guests.base import FakeGuest
from consoled.testing.guests.host import GuestHost, GuestT
from consoled.testing.libraries import fixtures


class GuestHostFixture(fixtures.Fixture):
    """Runs guests for the time of a test: ``host`` is the ``GuestHost``, whose methods this has too."""

    def _setUp(self) -> None:
        self.host = GuestHost()
        self.host.start()
        self.addCleanup(self.host.stop)

    def add(self, guest: GuestT) -> GuestT:
        """Start a guest and return it."""
        return self.host.add(guest)

    def remove(self, guest: FakeGuest) -> None:
        """Stop a guest and disconnect its clients."""
        self.host.remove(guest)

    def disconnect(self, guest: FakeGuest) -> None:
        """Disconnect all clients of a guest, which keeps listening."""
        self.host.disconnect(guest)

    def settle(self) -> None:
        """Let the guests process everything that has reached them; see ``GuestHost.settle``."""
        self.host.settle()
