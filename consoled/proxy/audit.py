# SPDX-License-Identifier: Apache-2.0
"""Audit trail: a log line and a notification when a session opens, is joined or closes, and for each refusal.

Neither ever contains the token. Anybody can cause refusals, so they are limited per address, and those left
out are counted. Notifications are sent with oslo.messaging, by the drivers that are set in
``[oslo_messaging_notifications]``; by default there are none.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import math
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import oslo_messaging
from oslo_config import cfg

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy.limits import RateLimit, client_networks
from consoled.proxy.session import Session
from consoled.rpc import transport

LOG = logging.getLogger(__name__)

_WORD = re.compile(r'[^\s"=]+')
_MAX_QUEUED = 10000  # notifications; more are dropped, and the log says so
_FLUSH_TIMEOUT = 5.0  # seconds to wait for queued notifications, while stopping
_LEFT_OUT_EVERY = 60.0  # seconds between two counts of refusals that were left out
_MAX_NAMED = 16  # addresses named in such a count; the rest are counted together
_BUS_OPTION = '[oslo_messaging_notifications] transport_url'


def check(conf: cfg.ConfigOpts) -> list[str]:
    """Check the bus of the notifications, if it is another one than the cell's. It is not contacted.

    :returns: a sentence for each thing that is not secure
    :raises ValueError: its URL cannot be used; the text has nothing of it
    """
    options = conf.oslo_messaging_notifications
    if not any(options.driver) or not options.transport_url:
        return []
    return transport.check_other_bus(conf, options.transport_url, _BUS_OPTION)


class Audit:
    """Observer of sessions that records who opened which console.

    Sending a notification may block, so a separate thread sends them.

    :param publisher: publisher id of the notifications, e.g. ``consoled-proxy.HOST``
    :param clock: monotonic clock
    """

    def __init__(
        self, conf: cfg.ConfigOpts, publisher: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._refusals = RateLimit(conf.proxy.max_recorded_refusals)
        self._left_out: collections.Counter[str | None] = collections.Counter()
        self._counted_at = clock()
        self._lost = 0  # notifications, since the last warning
        self._warned_at = -math.inf
        self._losing = threading.Lock()
        self._notifier: oslo_messaging.Notifier | None = None
        if any(conf.oslo_messaging_notifications.driver):
            bus = oslo_messaging.get_notification_transport(conf)
            self._notifier = oslo_messaging.Notifier(bus, publisher_id=publisher, retry=3)
        self._queue: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(_MAX_QUEUED)
        self._thread = threading.Thread(target=self._send, name='audit', daemon=True)

    def start(self) -> None:
        """Start sending notifications."""
        if self._notifier is not None:
            self._thread.start()

    def stop(self) -> None:
        """Send the queued notifications, for a few seconds at most."""
        self.record_left_out(at_once=True)
        if self._notifier is not None:
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=_FLUSH_TIMEOUT)
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
    ) -> bool:
        """Record a refusal, if it is within the limit.

        What a manager had granted is limited per instance: others behind the user's address cannot hide it.

        :param session: the session if a manager had granted it; otherwise the user is unknown
        :returns: whether it was recorded; otherwise it is counted as left out
        """
        if session is None:
            keys, known = client_networks(client_address), {'client_address': client_address}
        else:
            known = _facts(session)
            keys = ((f'instance {known["instance_uuid"]}', 1),)
        if not self._refusals.take(keys, self._clock()):
            named = len(self._left_out) < _MAX_NAMED or client_address in self._left_out
            self._left_out[client_address if named else 'others'] += 1
            return False
        self._record('refused', {'code': error.code, 'status': error.http_status, **known})
        return True

    def record_left_out(self, *, at_once: bool = False) -> None:
        """Record how many refusals were left out, by address. Call it often: it does so once a minute.

        :param at_once: do not wait until the minute is over
        """
        seconds = self._clock() - self._counted_at
        if not self._left_out:
            self._counted_at = self._clock()
        elif at_once or seconds >= _LEFT_OUT_EVERY:
            for address, number in self._left_out.items():
                facts = {'client_address': address, 'refusals': number, 'seconds': round(seconds)}
                self._record('left_out', facts)
            self._left_out.clear()
            self._counted_at = self._clock()

    def _record(self, event: str, facts: dict[str, Any]) -> None:
        LOG.info('session %s %s', event, ' '.join(f'{name}={_text(value)}' for name, value in facts.items()))
        if self._notifier is None:
            return
        try:
            self._queue.put_nowait((f'consoled.session.{event}', facts))
        except queue.Full:
            self._lose('the queue is full')

    def _send(self) -> None:
        assert self._notifier is not None
        while (item := self._queue.get()) is not None:
            event, facts = item
            try:
                self._notifier.info({}, event, facts)
            except Exception as exc:
                self._lose(type(exc).__name__)

    def _lose(self, reason: str) -> None:
        """Count a notification that is not sent, and say so once a minute. Any thread may call it."""
        with self._losing:
            self._lost += 1
            now = self._clock()
            if now - self._warned_at < _LEFT_OUT_EVERY:
                return
            lost, self._lost, self._warned_at = self._lost, 0, now
        LOG.warning('Notifications lost: %d, the last one because of: %s', lost, reason)


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
