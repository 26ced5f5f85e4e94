# SPDX-License-Identifier: Apache-2.0
"""A fixture around ``GuestHost``; apart from it, since the demo runs guests without the fixtures library."""

from __future__ import annotations

import fixtures

from consoled.testing.guests import plain
from consoled.testing.guests.base import Guest


class GuestHostFixture(fixtures.Fixture):
    """Guests for a test: ``host`` is the ``GuestHost``, ``add`` and ``settle`` are its methods."""

    def _setUp(self) -> None:
        self.host = plain.GuestHost()
        self.host.start()
        self.addCleanup(self.host.stop)

    def add(self, guest: plain.GuestType) -> plain.GuestType:
        return self.host.add(guest)

    def remove(self, guest: Guest) -> None:
        self.host.remove(guest)

    def disconnect(self, guest: Guest) -> None:
        self.host.disconnect(guest)

    def settle(self) -> None:
        self.host.settle()
