# SPDX-License-Identifier: Apache-2.0
"""A fixture around ``GuestHost``; apart from it, since the demo runs guests without the fixtures library."""

from __future__ import annotations

import fixtures

from consoled.testing import guests
from consoled.testing.guest_base import Guest


class GuestHostFixture(fixtures.Fixture):
    """Guests for a test: ``host`` is the ``GuestHost``, ``add`` and ``settle`` are its methods."""

    def _setUp(self) -> None:
        self.host = guests.GuestHost()
        self.host.start()
        self.addCleanup(self.host.stop)

    def add(self, guest: guests.GuestType) -> guests.GuestType:
        return self.host.add(guest)

    def remove(self, guest: Guest) -> None:
        self.host.remove(guest)

    def disconnect(self, guest: Guest) -> None:
        self.host.disconnect(guest)

    def settle(self) -> None:
        self.host.settle()
