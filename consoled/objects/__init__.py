# SPDX-License-Identifier: Apache-2.0
"""The wire contract: versioned objects, their fields and their compatibility. No SQL, no RPC."""

from consoled.objects.base import ConsoledObject
from consoled.objects.connection import ConsoleConnection, ConsoleConnectionList
from consoled.objects.fields import ConsoleType
from consoled.objects.reasons import EndReason
from consoled.objects.session import ConsoleSession, ConsoleSessionList
from consoled.objects.token import ConsoleAuthToken

__all__ = [
    'ConsoleAuthToken',
    'ConsoleConnection',
    'ConsoleConnectionList',
    'ConsoleSession',
    'ConsoleSessionList',
    'ConsoleType',
    'ConsoledObject',
    'EndReason',
]
