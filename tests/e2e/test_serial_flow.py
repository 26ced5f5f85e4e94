# SPDX-License-Identifier: Apache-2.0
"""The serial page in two browsers: a guest that prints without end, a silent one, and long pastes."""

from consoled.testing.fixtures import wait_until
from consoled.testing.guests.base import FakeGuest
from consoled.testing.guests.tcp_guests import FloodGuest
from tests.e2e import base, firefox

MIB = 2**20
A_FLOOD = 16 * MIB  # bytes
# Bytes that are on their way when ^C is pressed: what the kernel buffers for the guest, and the window.
ON_THEIR_WAY = 3 * MIB

# Notes what the page acknowledges.
_SPY = """
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  if (typeof data === 'string') window.acknowledged = Number(data);
  return send.call(this, data);
};
"""
_PASTE = """
const data = 'line 7\\n'.repeat(arguments[0] / 7) + '.'.repeat(arguments[0] % 7);
const clipboardData = new DataTransfer();
clipboardData.setData('text/plain', data);
// the last two are Firefox's
const how = { bubbles: true, cancelable: true, clipboardData, data, dataType: 'text/plain' };
const paste = new ClipboardEvent('paste', how);
document.querySelector('.xterm-helper-textarea').dispatchEvent(paste);
"""


class SilentGuest(FakeGuest):
    """Prints nothing until it has received something, all of which it keeps.

    :ivar received: may be read from any thread
    """

    def __init__(self):
        super().__init__()
        self.received = bytearray()

    async def serve(self, reader, writer):
        while data := await reader.read(65536):
            if not self.received:
                writer.write(b'login: ')
            self.received += data


class StrangeGuest(FakeGuest):
    """Prints control sequences that xterm.js would carry out for minutes, or at which it would stop."""

    async def serve(self, reader, writer):
        for final in b'@ABCDEFGHIJKLMPSTXZ`abde':
            writer.write(b'x\x1b[2147483647%c' % final)
        writer.write(b'\x1bcthe end')
        while await reader.read(65536):
            pass


class SerialPage:
    """What holds in each browser."""

    def open(self, guest):
        self.guests.add(guest)
        self.addCleanup(self.guests.remove, guest)
        self.browser.open(self.grant(guest, 'serial', 'serial.html').access_url)
        self.browser.wait_for_state('connected')
        return guest

    def test_a_guest_that_prints_without_end_is_held_back_and_can_be_interrupted(self):
        guest = self.open(FloodGuest())
        self.browser.driver.execute_script(_SPY)
        wait_until(lambda: guest.sent > A_FLOOD, what='output')
        wait_until(lambda: self.acknowledged, what='an acknowledgement')
        self.browser.interrupt()
        wait_until(lambda: guest.interrupted, what='the interrupt')
        self.assertLess(guest.sent - self.acknowledged, ON_THEIR_WAY)
        wait_until(lambda: self.browser.terminal().endswith('flood>'), what='the prompt')
        self.assertIn(f'line {guest.lines - 1}\nline {guest.lines}\n^C\nflood>', self.browser.terminal())
        self.assertEqual([], self.browser.violations())
        self.assertEqual('connected', self.browser.state[0])

    @property
    def acknowledged(self):
        return self.browser.driver.execute_script('return window.acknowledged || 0')

    def test_a_paste_of_any_size_arrives_whole(self):
        """The limit on a message is 1 MiB."""
        guest = self.open(SilentGuest())
        size = 3 * MIB + 1
        self.browser.driver.execute_script(_PASTE, size)
        self.browser.type('!')
        wait_until(lambda: guest.received.endswith(b'!'), what='the text')
        pasted = b'line 7\r' * (size // 7) + b'.' * (size % 7)
        self.assertEqual(len(pasted) + 1, len(guest.received))
        self.assertTrue(pasted + b'!' == guest.received, 'it was changed')
        self.assertEqual('connected', self.browser.state[0])

    def test_sequences_without_end_are_ignored(self):
        self.open(StrangeGuest())
        wait_until(lambda: self.browser.terminal().startswith('the end'), what='the text after them')
        self.assertEqual([], self.browser.violations())

    def test_the_page_says_that_the_guest_is_silent_until_it_is_not(self):
        guest = self.open(SilentGuest())
        wait_until(lambda: self.silence == 'No output yet. Press Enter.', what='the hint')
        self.browser.type('\n')
        wait_until(lambda: 'login:' in self.browser.terminal(), what='the output')
        self.assertIsNone(self.silence)
        self.assertEqual(b'\r', bytes(guest.received))

    @property
    def silence(self):
        """The hint that the page shows."""
        return self.browser.driver.execute_script(
            "const hint = document.getElementById('silent'); return hint.hidden ? null : hint.textContent"
        )


class ChromiumTest(SerialPage, base.BrowserTestCase):
    pass


class FirefoxTest(SerialPage, base.BrowserTestCase):
    browser_fixture = firefox.Firefox
