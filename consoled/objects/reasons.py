# SPDX-License-Identifier: Apache-2.0
"""Why a session ends: the values of ``cut_reason`` and of ``close_session``'s ``reason``."""

from __future__ import annotations

import enum


class EndReason(enum.StrEnum):
    """Why a session ended or has to end.

    Operators may give a reason of their own to ``revoke``: then the session is cut with that text, which is
    no member. The values are part of the contract: they are in the database, on the wire, in metrics and in
    logs, and never change.
    """

    # decided by managers
    TAKEN_OVER = 'taken_over'
    INSTANCE_GONE = 'instance_gone'
    CONSOLE_MOVED = 'console_moved'
    CONSOLE_GONE = 'console_gone'
    LEASE_LOST = 'lease_lost'  # by the proxy too, when it can't renew its lease
    # decided by proxies
    USER_LEFT = 'user_left'
    USER_LOST = 'user_lost'
    GUEST_CLOSED = 'guest_closed'
    GUEST_STALLED = 'guest_stalled'
    TIME_OVER = 'time_over'
    IDLE = 'idle'
    DRAINED = 'drained'
    PROTOCOL_ERROR = 'protocol_error'
    MESSAGE_TOO_BIG = 'message_too_big'
    OPEN_FAILED = 'open_failed'  # it never began
    # decided by operators
    COMPUTE_HOST_GONE = 'compute_host_gone'
