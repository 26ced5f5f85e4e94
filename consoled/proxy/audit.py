# SPDX-License-Identifier: Apache-2.0
"""Who opened which console: one line in the log and one notification for each open, refusal and close.

Neither ever has the token. Notifications go through oslo.messaging's notifier, to the driver that
``[oslo_messaging_notifications]`` names; by default to none.
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
from consoled.proxy.sessions import Session

LOG = logging.getLogger(__name__)

_WORD = re.compile(r'[^\s"=]+')
_MOST_WAITING = 10000  # notifications; more are dropped, which the log tells
_FLUSH = 5.0  # seconds that stopping waits for those


class Audit:
    """Tells of sessions. Sending may block, so a thread of its own does it.

    :param publisher: who says so, e.g. ``consoled-proxy.HOST``
    """

    def __init__(self, conf: cfg.ConfigOpts, publisher: str) -> None:
        self._notifier: oslo_messaging.Notifier | None = None
        if any(conf.oslo_messaging_notifications.driver):
            transport = oslo_messaging.get_notification_transport(conf)
            self._notifier = oslo_messaging.Notifier(transport, publisher_id=publisher, retry=3)
        self._queue: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._send, name='audit', daemon=True)

    def start(self) -> None:
        if self._notifier is not None:
            self._thread.start()

    def stop(self) -> None:
        """Send what is waiting, for some seconds at most."""
        if self._notifier is not None:
            self._queue.put(None)
            self._thread.join(_FLUSH)

    def opened(self, session: Session) -> None:
        self._tell('opened', _of(session))

    def closed(self, session: Session, reason: str, seconds: float) -> None:
        self._tell(
            'closed',
            _of(session)
            | {
                'reason': reason,
                'seconds': round(seconds, 3),
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
        """:param session: where the managers had said yes; else nobody knows who it was"""
        known = {'client_address': client_address} if session is None else _of(session)
        self._tell('refused', {'code': error.code, 'status': error.http_status, **known})

    def _tell(self, event: str, facts: dict[str, Any]) -> None:
        LOG.info('session %s %s', event, ' '.join(f'{name}={_text(value)}' for name, value in facts.items()))
        if self._notifier is None:
            return
        try:
            self._queue.put_nowait((f'consoled.session.{event}', facts))
        except queue.Full:
            LOG.warning('notification dropped: too many are waiting')

    def _send(self) -> None:
        assert self._notifier is not None
        while (item := self._queue.get()) is not None:
            event, facts = item
            try:
                self._notifier.info({}, event, facts)
            except Exception as exc:
                LOG.warning('notification %s could not be sent: %s', event, type(exc).__name__)


def _text(value: Any) -> str:
    """A value as one word, so that a program can read the line: quoted as in JSON if it is none."""
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text)


def _of(session: Session) -> dict[str, Any]:
    return {
        'session_id': session.id,
        'instance_uuid': session.console.instance_uuid,
        'console_type': session.console.console_type,
        'user_id': session.user_id,
        'project_id': session.project_id,
        'client_address': session.client_address,
    }
