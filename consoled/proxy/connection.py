# SPDX-License-Identifier: Apache-2.0
"""A user's connection while it speaks HTTP (RFC 9112, by h11), until a websocket takes it over."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import h11
from oslo_config import cfg

from consoled import exception
from consoled.proxy import handshake, responses
from consoled.proxy.admission import Admission, Opened
from consoled.proxy.pages import Pages
from consoled.proxy.relay import Channel, ReadBuffer, report_all_unsent
from consoled.proxy.security.rfb import UserHandshake
from consoled.proxy.sessions import Sessions

LOG = logging.getLogger(__name__)


@dataclasses.dataclass
class Service:
    """What all connections of a process share; ``pages`` and ``policy`` may be replaced by a reload."""

    conf: cfg.ConfigOpts
    policy: handshake.Policy
    pages: Pages
    admission: Admission
    sessions: Sessions
    read_buffer: ReadBuffer


class UserConnection(asyncio.Protocol):
    """Answers requests; opens the websocket that one asks for.

    :param peer: the user's IP address, or None on a unix socket
    :param closed: called once when the connection is gone, as a websocket too
    """

    def __init__(
        self, service: Service, peer: str | None, *, secure: bool, closed: Callable[[], None]
    ) -> None:
        self._service = service
        self._peer = peer
        self._secure = secure
        self._closed = closed
        self._limit: int = service.conf.proxy.max_header_size
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limit)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._blocked = False  # answers wait for the user to read them
        self._upgraded = False
        self._turn = False  # the next request will be looked for
        self._head = False  # the request that is being answered wants no body
        self._wants_json = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        # Not at once: asyncio still holds the end of the TLS handshake, and would not send it while we wait.
        self._loop.call_soon(report_all_unsent, self._transport)
        self._wait_for_request()

    def _wait_for_request(self) -> None:
        self._stop_waiting()
        self._timer = self._loop.call_later(self._service.conf.proxy.request_timeout, self._too_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        # nothing is owed to one who has sent nothing
        if not self._blocked and self._http.their_state is h11.IDLE and self._http.trailing_data[0]:
            self._refuse(exception.RequestTimeout())
        self._transport.abort() if self._blocked else self._close()

    def _close(self) -> None:
        """Close once the user has taken what was sent; one who does not take it is not waited for long."""
        self._stop_waiting()
        if not self._transport.is_closing():
            self._transport.close()
        self._timer = self._loop.call_later(self._service.conf.proxy.request_timeout, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._blocked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._blocked = False
        self._advance_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._task is not None:
            self._task.cancel()
        self._closed()

    def _advance_soon(self) -> None:
        """Go on when others have had their turn: thousands of requests may come in one piece."""
        if not self._turn:
            self._turn = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        """Answer the next request that is here. Nothing is read before the last one is answered."""
        self._turn = False
        while self._task is None and not self._blocked and not self._transport.is_closing():
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as exc:
                too_large = exc.error_status_hint == 431
                self._refuse(
                    exception.RequestTooLarge() if too_large else exception.BadRequest(reason='malformed')
                )
                self._close()
                return
            if event is h11.NEED_DATA:
                self._transport.resume_reading()
                return
            if event is h11.PAUSED:
                return
            if isinstance(event, h11.Request):
                self._stop_waiting()
                self._transport.pause_reading()
                self._request(event)
                self._advance_soon()
                return

    def _request(self, request: h11.Request) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in request.headers:
            headers.setdefault(name.decode('ascii'), []).append(value.decode('latin-1'))
        asked = handshake.Request(
            method=request.method.decode('ascii'),
            target=request.target.decode('latin-1'),
            headers=headers,
            peer=self._peer,
            secure=self._secure,
            http_version=request.http_version.decode('ascii'),
        )
        self._head = asked.method == 'HEAD'
        self._wants_json = handshake.wants_json(asked)
        # h11 only bounds what it waits for: a head that is here at once may be longer
        if sum(len(name) + len(value) for name, value in request.headers) > self._limit - len(request.target):
            self._refuse(exception.RequestTooLarge())
            self._finish()
            return
        decision = handshake.decide(asked, self._service.policy)
        if isinstance(decision, handshake.Upgrade):
            self._run(self._open(decision))
        elif isinstance(decision, handshake.Fetch):
            self._fetch(decision)
        else:
            if 'upgrade' in headers:
                self._service.admission.refused(decision)
            self._refuse(decision.error)
            self._finish()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Whatever happens, the user gets an answer."""
        try:
            await work
        except exception.ConsoledException as exc:
            self._refuse(exc)
        except Exception:
            LOG.exception('a request could not be answered')
            self._refuse(exception.InternalError())
        self._task = None
        if not self._upgraded:
            self._finish()
            self._advance_soon()

    # pages

    def _fetch(self, fetch: handshake.Fetch) -> None:
        found = self._service.pages.get(fetch.path, fetch.if_none_match)
        if found is not None:
            self._send(*responses.page(found))
            self._finish()
        elif fetch.token is not None:
            self._run(self._explain(fetch, fetch.token))
        else:
            self._refuse(fetch.bad_token or exception.NotFound())
            self._finish()

    async def _explain(self, fetch: handshake.Fetch, token: str) -> None:
        self._refuse(await self._service.admission.explain(token, fetch.client.address))

    def _refuse(self, error: exception.ConsoledException) -> None:
        self._send(*responses.refusal(error, as_json=self._wants_json))

    def _send(self, response: h11.Response, body: bytes) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self._transport.is_closing():
            return
        data = self._http.send(response)
        if not self._head:
            data += self._http.send(h11.Data(data=body))
        self._transport.write(data + self._http.send(h11.EndOfMessage()))

    def _finish(self) -> None:
        """Go on to the next request, if there may be one."""
        if self._transport.is_closing():
            return
        if self._http.our_state is h11.DONE and self._http.their_state is h11.SEND_BODY:
            with contextlib.suppress(h11.RemoteProtocolError):  # a body, and not even one that can be
                self._http.next_event()  # the end of a request without a body
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._wait_for_request()
        else:
            self._close()

    # websockets

    async def _open(self, upgrade: handshake.Upgrade) -> None:
        opened = await self._service.admission.open(upgrade)
        headers = [
            ('Upgrade', 'websocket'),
            ('Connection', 'Upgrade'),
            ('Sec-WebSocket-Accept', upgrade.accept),
        ]
        if upgrade.subprotocol is not None:
            headers.append(('Sec-WebSocket-Protocol', upgrade.subprotocol))
        channel = self._channel(opened)
        self._service.sessions.connected(opened.session, channel)
        self._http.next_event()
        switching = self._http.send(h11.InformationalResponse(status_code=101, headers=headers))
        self._transport.write(switching)
        self._upgraded = True
        channel.start(self._http.trailing_data[0])

    def _channel(self, opened: Opened) -> Channel:
        options, session = self._service.conf.proxy, opened.session
        vnc = session.console.console_type == 'novnc'
        return Channel(
            self._transport,
            opened.target.transport,
            self._service.read_buffer,
            max_message_size=options.max_message_size,
            close_timeout=options.close_timeout,
            input_filter=opened.input_filter,
            greeting=UserHandshake() if vnc else None,
            rest=opened.target.rest,
            released=lambda channel: self._service.sessions.released(session, channel),
            closed=self._closed,
        )
