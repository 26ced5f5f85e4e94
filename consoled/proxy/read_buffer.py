# SPDX-License-Identifier: Apache-2.0
"""Memory that a process reads into, and how much of it may wait for users who are slow to accept data."""

from __future__ import annotations

import asyncio
import struct

from websockets.frames import Opcode

_HEADROOM = 10  # bytes of the longest header of a frame from a server (RFC 6455, section 5.2)
_CHUNK = 256 * 1024  # bytes read from a guest at a time
_MANY_WAITING = 128  # users for whom data waits; if there are more, less is read at a time
_SHORT_CHUNK = 16 * 1024
# Bytes read from a user at a time. A frame may be as small as 6 bytes, and all other users wait while the
# frames of a read are parsed.
USER_CHUNK = 16 * 1024

_FIN_BINARY = 0x80 | Opcode.BINARY


class ReadBuffer:
    """Memory that a process reads into, shared by all its connections.

    Its content is processed before control returns to the event loop. If a part could not be sent at once,
    the transport keeps the memory until it is sent, and new memory is allocated. Thousands of users who read
    nothing must not take a large piece each: when many wait, pieces are small.

    :ivar waiting: number of users for whom data waits
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.renew()

    def renew(self) -> None:
        """Allocate new memory; the old memory is left to the transport that still refers to it."""
        self.memory = bytearray(_HEADROOM + _CHUNK)
        self.view = memoryview(self.memory)
        self.user = self.view[:USER_CHUNK]

    @property
    def payload(self) -> memoryview:
        """Memory for data from a guest."""
        size = _CHUNK if self.waiting < _MANY_WAITING else _SHORT_CHUNK
        return self.view[_HEADROOM : _HEADROOM + size]

    def framed(self, length: int) -> memoryview:
        """Return the first ``length`` bytes of the payload as one binary message (RFC 6455, section 5.2).

        A piece that was read while many users waited is a copy, because it may keep all of its memory.
        """
        if length < 126:
            start = _HEADROOM - 2
            struct.pack_into('!BB', self.memory, start, _FIN_BINARY, length)
        elif length < 65536:
            start = _HEADROOM - 4
            struct.pack_into('!BBH', self.memory, start, _FIN_BINARY, 126, length)
        else:
            start = _HEADROOM - 10
            struct.pack_into('!BBQ', self.memory, start, _FIN_BINARY, 127, length)
        frame = self.view[start : _HEADROOM + length]
        return frame if self.waiting < _MANY_WAITING else memoryview(bytes(frame))


def report_all_unsent(transport: asyncio.Transport) -> None:
    """Make a transport call ``pause_writing`` as soon as there is a byte that it could not send at once."""
    # For asyncio's TLS transport, an empty buffer exceeds a limit of 0: it would pause for ever.
    tls = transport.get_extra_info('sslcontext') is not None
    transport.set_write_buffer_limits(high=int(tls), low=0)
