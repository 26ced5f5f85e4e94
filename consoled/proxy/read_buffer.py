# SPDX-License-Identifier: Apache-2.0
"""Read buffer: the memory that a process reads into, with room for the header of a frame. No I/O."""

from __future__ import annotations

import struct

from websockets.frames import Opcode

HEADROOM = 10  # bytes of the longest header of a frame from a server (RFC 6455, section 5.2)
CHUNK = 256 * 1024  # bytes read from a guest at a time
# Bytes read from a user at a time. A frame may be as small as 6 bytes, and all other users wait while the
# frames of a read are parsed.
USER_CHUNK = 16 * 1024

_FIN_BINARY = 0x80 | Opcode.BINARY


class ReadBuffer:
    """Memory that a process reads into, shared by all its connections.

    Its content is processed before control returns to the event loop. If a part could not be sent at once,
    the transport keeps the memory until it is sent, and new memory is allocated.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Allocate new memory; the old memory is left to the transport that still refers to it."""
        self.memory = bytearray(HEADROOM + CHUNK)
        self.view = memoryview(self.memory)
        self.payload = self.view[HEADROOM:]
        self.user = self.view[:USER_CHUNK]

    def framed(self, length: int) -> memoryview:
        """Return the first ``length`` bytes of the payload as one binary message (RFC 6455, section 5.2)."""
        if length < 126:
            start = HEADROOM - 2
            struct.pack_into('!BB', self.memory, start, _FIN_BINARY, length)
        elif length < 65536:
            start = HEADROOM - 4
            struct.pack_into('!BBH', self.memory, start, _FIN_BINARY, 126, length)
        else:
            start = HEADROOM - 10
            struct.pack_into('!BBQ', self.memory, start, _FIN_BINARY, 127, length)
        return self.view[start : HEADROOM + length]
