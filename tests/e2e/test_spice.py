# SPDX-License-Identifier: Apache-2.0
"""The page of a SPICE console, with guests that are not what it expects. Real ones are in ``test_qemu``."""

import struct

from consoled.testing.guests.base import FakeGuest
from tests.e2e import base

NO_SPICE = b'HTTP/1.0 400 Bad Request\r\n\r\n'
# A link header (magic, version, size), and a reply that is shorter than any: spice-html5 throws an error.
SHORT = b'REDQ' + struct.pack('<III', 2, 2, 10) + bytes(10)
REFUSED = b'REDQ' + struct.pack('<III', 2, 2, 178) + struct.pack('<I', 2) + bytes(174)


class StrangeGuest(FakeGuest):
    """Answers everybody with the same bytes."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    async def serve(self, reader, writer):
        await reader.read(1)
        writer.write(self.answer)
        while await reader.read(1000):
            pass


class SpiceTest(base.BrowserTestCase):
    def test_a_display_that_cannot_be_shown(self):
        for answer, reason in (
            (NO_SPICE, 'console_failed'),
            (SHORT, 'display_error'),
            (REFUSED, 'console_failed'),
        ):
            guest = self.guests.add(StrangeGuest(answer))
            self.browser.open(self.grant(guest, 'spice-html5', 'spice.html').access_url)
            self.browser.wait_for_state('ended', reason)
