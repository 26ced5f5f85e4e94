# SPDX-License-Identifier: Apache-2.0
"""Reasons for the end of a session: the values of ``cut_reason``, and of ``reason`` in ``close_session``."""

from __future__ import annotations

import enum


class EndReason(enum.StrEnum):
    """Why a session ended or must end.

    The values are part of the contract and never change: they are in the database, on the wire, in metrics
    and in logs. An operator may give ``revoke`` another reason, so a ``cut_reason`` need not be a member.
    """

    # Set by managers.
    TAKEN_OVER = 'taken_over'
    INSTANCE_GONE = 'instance_gone'
    CONSOLE_MOVED = 'console_moved'
    CONSOLE_GONE = 'console_gone'
    LEASE_LOST = 'lease_lost'  # set by a proxy too, when it cannot renew its lease
    # Set by proxies.
    USER_LEFT = 'user_left'
    USER_LOST = 'user_lost'
    GUEST_CLOSED = 'guest_closed'
    GUEST_STALLED = 'guest_stalled'
    TIME_OVER = 'time_over'
    IDLE = 'idle'
    DRAINED = 'drained'
    PROTOCOL_ERROR = 'protocol_error'
    MESSAGE_TOO_BIG = 'message_too_big'
    OPEN_FAILED = 'open_failed'  # the session never began
    # Set by operators.
    COMPUTE_HOST_GONE = 'compute_host_gone'
