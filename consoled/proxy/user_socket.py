# SPDX-License-Identifier: Apache-2.0
"""Protocol of a user's websocket after the 101: the core of the ``websockets`` library. No I/O."""

from __future__ import annotations

import logging

from websockets.protocol import OPEN, Protocol, Side

from consoled.objects.reasons import EndReason
from consoled.proxy import close_codes

# The library logs the frames that it parses, and they contain the keys that users press.
_SILENT = logging.Logger('consoled.proxy.websocket', level=logging.CRITICAL + 1)


class UserSocket(Protocol):
    """The library's protocol. If it ends the websocket, the user is told in our words instead of its own.

    :param max_message_size: limit on a message from the user, in bytes
    """

    def __init__(self, max_message_size: int) -> None:
        super().__init__(Side.SERVER, state=OPEN, max_size=max_message_size, logger=_SILENT)

    def fail(self, code: int, reason: str = '') -> None:
        """End the websocket with this close code; ``reason`` is the library's, and is not sent."""
        too_big = code == close_codes.CloseCode.MESSAGE_TOO_BIG
        ended = EndReason.MESSAGE_TOO_BIG if too_big else EndReason.PROTOCOL_ERROR
        super().fail(code, close_codes.ending(ended).text)
