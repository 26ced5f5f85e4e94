# SPDX-License-Identifier: Apache-2.0
"""Flow control for clients whose websocket cannot stop reading, as in a browser. No I/O.

A page gets its messages as fast as the network carries them, and has no means to make the browser stop. A
guest that prints without end would fill its memory, and the echo of ^C would come behind all of it. So a
client may offer the subprotocol ``consoled.flow``. Its data is then in binary messages only, and each text
message that it sends is an acknowledgement: the number of bytes that it has processed since the session
began, in decimal digits. The guest is held back while more than ``WINDOW`` bytes are unacknowledged.
"""

from __future__ import annotations

import json

from websockets.frames import Frame, Opcode

PROTOCOL = 'consoled.flow'  # subprotocol of websockets (RFC 6455, section 1.9)

# The same, for clients that show which serial port of a guest it is: see ``notice``.
SERIAL = 'consoled.serial'

PROTOCOLS = (SERIAL, PROTOCOL)

# Bytes. A page on a slow machine takes some tenths of a second to show them; over 100 ms of network they
# still allow a megabyte a second, which is more than anybody reads.
WINDOW = 128 * 1024

_MAX_DIGITS = 20


def notice(serial_port: int) -> bytes:
    """Return the first message of a websocket that shows another serial port than the token's.

    It is a text, {"serial_port": 2}: data of the guest is in binary messages.
    """
    return Frame(Opcode.TEXT, json.dumps({'serial_port': serial_port}).encode()).serialize(mask=False)


class Window:
    """What one client has been sent and has not acknowledged."""

    __slots__ = ('_acknowledged', '_sent', '_text')

    def __init__(self) -> None:
        self._sent = 0
        self._acknowledged = 0
        self._text: bytes | None = None  # of the acknowledgement in progress: it may come in fragments

    @property
    def full(self) -> bool:
        """Whether nothing more may be sent until the client acknowledges."""
        return self._sent - self._acknowledged >= WINDOW

    def sent(self, length: int) -> None:
        """Count bytes that were sent."""
        self._sent += length

    def take(self, frame: Frame) -> bool:
        """Take a frame with data, and return whether it belongs to an acknowledgement.

        :raises ValueError: it belongs to a text that is not a number, or to more than was sent
        """
        if frame.opcode is Opcode.TEXT:
            self._text = b''
        if self._text is None:
            return False
        text = self._text = self._text + bytes(frame.data[: _MAX_DIGITS + 1])
        if len(text) > _MAX_DIGITS:
            raise ValueError('an acknowledgement that is too long')
        if frame.fin:
            self._text = None
            self._acknowledge(text)
        return True

    def _acknowledge(self, text: bytes) -> None:
        if not text.isdigit() or int(text) > self._sent:
            raise ValueError('not an acknowledgement')
        self._acknowledged = max(self._acknowledged, int(text))

    def renew(self) -> None:
        """Open the window without an acknowledgement, while the guest takes no input.

        Acknowledgements are behind that input, and the guest may wait for its echo to be taken first.
        """
        self._acknowledged = self._sent
