# SPDX-License-Identifier: Apache-2.0
"""Audit trail: a log line and a notification when a session opens, is joined or closes, and for each refusal.

Neither ever contains the token. Notifications are sent with oslo.messaging, by the drivers that are set in
``[oslo_messaging_notifications]``; by default there are none.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import threading
from typing import Any

import oslo_messaging
from oslo_config import cfg

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy.session import Session

LOG = logging.getLogger(__name__)

_WORD = re.compile(r'[^\s"=]+')
_MAX_QUEUED = 10000  # notifications; more are dropped, and the log says so
_FLUSH_TIMEOUT = 5.0  # seconds to wait for queued notifications, while stopping


class Audit:
    """Observer of sessions that records who opened which console.

    Sending a notification may block, so a separate thread sends them.

    :param publisher: publisher id of the notifications, e.g. ``consoled-proxy.HOST``
    """

    def __init__(self, conf: cfg.ConfigOpts, publisher: str) -> None:
        self._notifier: oslo_messaging.Notifier | None = None
        if any(conf.oslo_messaging_notifications.driver):
            transport = oslo_messaging.get_notification_transport(conf)
            self._notifier = oslo_messaging.Notifier(transport, publisher_id=publisher, retry=3)
        self._queue: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(_MAX_QUEUED)
        self._thread = threading.Thread(target=self._send, name='audit', daemon=True)

    def start(self) -> None:
        """Start sending notifications."""
        if self._notifier is not None:
            self._thread.start()

    def stop(self) -> None:
        """Send the queued notifications, for a few seconds at most."""
        if self._notifier is not None:
            self._queue.put(None)
            self._thread.join(_FLUSH_TIMEOUT)

    def opened(self, session: Session) -> None:
        """Record that a session is open."""
        self._record('opened', _facts(session))

    def joined(self, session: Session) -> None:
        """Record that another websocket has joined a session."""
        self._record('joined', _facts(session) | {'channels': len(session.channels)})

    def ended(self, session: Session) -> None:
        """Record the end of a session that was open."""
        if not session.was_open:
            return
        self._record(
            'closed',
            _facts(session)
            | {
                'reason': str(session.end_reason or EndReason.USER_LEFT),
                'seconds': round(session.seconds, 3),
                'bytes_in': session.bytes_in,
                'bytes_out': session.bytes_out,
            },
        )

    def refused(
        self,
        error: exception.ConsoledException,
        client_address: str | None,
        session: Session | None = None,
    ) -> None:
        """Record a refusal.

        :param session: the session if a manager had granted it; otherwise the user is unknown
        """
        known = {'client_address': client_address} if session is None else _facts(session)
        self._record('refused', {'code': error.code, 'status': error.http_status, **known})

    def _record(self, event: str, facts: dict[str, Any]) -> None:
        LOG.info('session %s %s', event, ' '.join(f'{name}={_text(value)}' for name, value in facts.items()))
        if self._notifier is None:
            return
        try:
            self._queue.put_nowait((f'consoled.session.{event}', facts))
        except queue.Full:
            LOG.warning('Notification dropped: the queue is full')

    def _send(self) -> None:
        assert self._notifier is not None
        while (item := self._queue.get()) is not None:
            event, facts = item
            try:
                self._notifier.info({}, event, facts)
            except Exception as exc:
                LOG.warning('Failed to send notification %s: %s', event, type(exc).__name__)


def _text(value: Any) -> str:
    """Return a value as one word, quoted as in JSON if necessary, so that programs can parse the line."""
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text)


def _facts(session: Session) -> dict[str, Any]:
    return {
        'session_id': session.id,
        'instance_uuid': session.console.instance_uuid,
        'console_type': session.console.console_type,
        'user_id': session.user_id,
        'project_id': session.project_id,
        'client_address': session.client_address,
    }
