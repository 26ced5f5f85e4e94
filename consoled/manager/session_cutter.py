# SPDX-License-Identifier: Apache-2.0
"""Pushing cut sessions to the proxies."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from consoled import exception
from consoled.context import RequestContext
from consoled.rpc.client import ProxyAPI

LOG = logging.getLogger(__name__)

_MAX_IDS = 1000  # in one cast


class SessionCutter:
    """Pushes cuts to the proxies.

    The sessions are already marked in the database, and a proxy that misses a push learns of it with its next
    renewal. So an unreachable bus is logged and is not an error.
    """

    def __init__(self, proxy: ProxyAPI) -> None:
        self._proxy = proxy

    def cut(self, context: RequestContext, session_ids: Sequence[str], reason: str) -> None:
        """Ask all proxies to end these sessions.

        :param reason: an ``EndReason``, or the text that an operator gave
        """
        for start in range(0, len(session_ids), _MAX_IDS):
            try:
                self._proxy.cut_sessions(context, session_ids[start : start + _MAX_IDS], reason)
            except exception.ManagerUnreachable as exc:
                LOG.warning('Could not ask the proxies to cut sessions: %s', exc)
