# SPDX-License-Identifier: Apache-2.0
"""HTTP connection of a user (RFC 9112, implemented by h11), until it becomes a websocket."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import h11
from oslo_config import cfg

from consoled import exception
from consoled.objects import ConsoleType
from consoled.proxy import flow, handshake, pages, responses
from consoled.proxy.admission import Admission, Admitted
from consoled.proxy.fair_queue import FairQueue
from consoled.proxy.limits import client_site
from consoled.proxy.metrics import Metrics
from consoled.proxy.read_buffer import ReadBuffer, report_all_unsent
from consoled.proxy.relay import Channel
from consoled.proxy.security.rfb import UserHandshake

LOG = logging.getLogger(__name__)


@dataclasses.dataclass
class ConnectionContext:
    """Objects shared by all connections of a process; a reload may replace ``pages`` and ``policy``.

    :ivar requests: requests that wait for their turn: to be parsed, and to be answered unless they may open a
        websocket
    """

    conf: cfg.ConfigOpts
    policy: handshake.Policy
    pages: pages.Pages
    admission: Admission
    metrics: Metrics
    read_buffer: ReadBuffer
    requests: FairQueue = dataclasses.field(default_factory=FairQueue)


class UserConnection(asyncio.Protocol):
    """Protocol that answers the requests of a connection until it becomes a websocket.

    :param peer: the user's IP address; None on a unix socket
    :param secure: whether the connection uses TLS
    :param closed: called once when the connection is closed, whether or not it became a websocket
    """

    def __init__(
        self, context: ConnectionContext, peer: str | None, *, secure: bool, closed: Callable[[], None]
    ) -> None:
        self._context = context
        self._peer = peer
        self._secure = secure
        self._closed = closed
        self._limit: int = context.conf.proxy.max_header_size
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limit)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._queued = False  # the request waits for its turn
        self._blocked = False  # the user is not reading the responses
        self._upgraded = False
        self._advancing = False  # ``_advance`` is scheduled
        self._forget_request()

    def _forget_request(self) -> None:
        """Forget what is known of a request: the next one may be refused before it is complete."""
        self._head = False  # the request is a HEAD, so the response has no body
        self._wants_json = False
        self._wants_websocket = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        # Deferred: asyncio has yet to send the end of the TLS handshake, and would not while it is paused.
        self._loop.call_soon(report_all_unsent, self._transport)
        self._wait_for_request()

    def _wait_for_request(self) -> None:
        self._stop_waiting()
        self._timer = self._loop.call_later(self._context.conf.proxy.request_timeout, self._timed_out)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        with self._aborted_by_errors():
            # A client that has sent nothing gets no response.
            if not self._blocked and self._http.their_state is h11.IDLE and self._http.trailing_data[0]:
                self._refuse(exception.RequestTimeout())
            self._transport.abort() if self._blocked else self._close()

    def _close(self) -> None:
        """Close the connection once the user has read the response, or after ``request_timeout``."""
        self._stop_waiting()
        if not self._transport.is_closing():
            self._transport.close()
        self._timer = self._loop.call_later(self._context.conf.proxy.request_timeout, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._transport.pause_reading()
        self._advance_soon()

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
        """Let ``_advance`` wait for its turn: many requests may arrive at once, and parsing takes long."""
        if not self._advancing:
            self._advancing = True
            self._context.requests.add(client_site(self._peer), self._advance)

    def _advance(self) -> None:
        self._advancing = False
        with self._aborted_by_errors():
            self._answer_next()

    @contextlib.contextmanager
    def _aborted_by_errors(self) -> Iterator[None]:
        """Log whatever fails, and end the connection: its user is not left waiting."""
        try:
            yield
        except Exception:
            LOG.exception('Failed to answer a request: closing its connection')
            self._transport.abort()
        except BaseException:
            self._transport.abort()
            raise

    def _answer_next(self) -> None:
        """Answer the next request that was received. Reading resumes only after it is answered."""
        while (
            self._task is None
            and not (self._queued or self._blocked or self._upgraded)
            and not self._transport.is_closing()
        ):
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
        self._wants_websocket = handshake.wants_websocket(asked)
        # h11 checks the limit only while a head is incomplete: one that arrives at once may exceed it.
        if sum(len(name) + len(value) for name, value in request.headers) > self._limit - len(request.target):
            self._refuse(exception.RequestTooLarge())
            self._finish()
            return
        decision = handshake.decide(asked, self._context.policy)
        if isinstance(decision, handshake.Upgrade):
            self._run(self._open(decision))
        else:
            self._queued = True
            refused = 'upgrade' in headers
            answer = functools.partial(self._answer_plain, decision, refused=refused)
            self._context.requests.add(client_site(decision.client.address), answer)

    def _answer_plain(self, decision: handshake.Fetch | handshake.Refusal, *, refused: bool) -> None:
        """Answer a request that opens no websocket.

        :param refused: whether it wanted one
        """
        self._queued = False
        if self._transport.is_closing():
            return
        with self._aborted_by_errors():
            if isinstance(decision, handshake.Fetch):
                self._fetch(decision)
            else:
                if refused:
                    self._context.admission.refused(decision)
                self._refuse(decision.error)
                self._finish()
        self._advance_soon()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work``, and answer with the error that it raises. Whatever else fails ends the connection."""
        with self._aborted_by_errors():
            await self._answered(work)

    async def _answered(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except exception.ConsoledException as exc:
            self._refuse(exc)
        except Exception:
            if self._upgraded:
                raise
            LOG.exception('Failed to answer a request')
            self._refuse(exception.InternalError())
        self._task = None
        if not self._upgraded:
            self._finish()
            self._advance_soon()

    # pages

    def _fetch(self, fetch: handshake.Fetch) -> None:
        path = pages.TERMINAL if fetch.pasted else fetch.path
        found = self._context.pages.get(path, fetch.if_none_match)
        if found is not None:
            if fetch.embedders:
                found = found.embeddable_by(fetch.client.scheme, fetch.embedders)
            self._send(*responses.page(found))
            self._finish()
        elif fetch.token is None:
            self._refuse(fetch.bad_token or exception.NotFound())
            self._finish()
        else:
            self._explain(fetch.token, fetch)

    def _explain(self, token: str, fetch: handshake.Fetch) -> None:
        why = self._context.admission.explain(token, fetch.client.address, foreign=fetch.foreign)
        if why is None:
            self._run(self._ask(token, fetch))
        else:
            self._refuse(why)
            self._finish()

    async def _ask(self, token: str, fetch: handshake.Fetch) -> None:
        self._refuse(await self._context.admission.ask(token, fetch.client.address, fetch.serial_port))

    def _refuse(self, error: exception.ConsoledException) -> None:
        response, body = responses.refusal(
            error,
            as_json=self._wants_json,
            for_websocket=self._wants_websocket,
            closing=self._http.their_state in (h11.IDLE, h11.ERROR),  # no request can follow a part of one
        )
        self._send(response, body)

    def _send(self, response: h11.Response, body: bytes) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self._transport.is_closing():
            return
        self._context.metrics.response(response.status_code)
        data = self._http.send(response)
        if not self._head:
            data += self._http.send(h11.Data(data=body))
        self._transport.write(data + self._http.send(h11.EndOfMessage()))

    def _finish(self) -> None:
        """Prepare for the next request, or close the connection if there cannot be one."""
        if self._transport.is_closing():
            return
        if self._http.our_state is h11.DONE and self._http.their_state is h11.SEND_BODY:
            with contextlib.suppress(h11.RemoteProtocolError):  # a malformed body
                self._http.next_event()  # EndOfMessage of a request without a body
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._forget_request()
            self._wait_for_request()
        else:
            self._close()

    # websockets

    async def _open(self, upgrade: handshake.Upgrade) -> None:
        admitted = await self._context.admission.admit(upgrade)
        headers = [
            ('Upgrade', 'websocket'),
            ('Connection', 'Upgrade'),
            ('Sec-WebSocket-Accept', upgrade.accept),
        ]
        if upgrade.subprotocol is not None:
            headers.append(('Sec-WebSocket-Protocol', upgrade.subprotocol))
        channel = self._channel(admitted, upgrade.subprotocol)
        admitted.session.connected(channel)
        self._http.next_event()
        switching = self._http.send(
            h11.InformationalResponse(status_code=101, headers=headers, reason='Switching Protocols')
        )
        if upgrade.subprotocol == flow.SERIAL and admitted.session.serial_port is not None:
            switching += flow.notice(admitted.session.serial_port)
        self._transport.write(switching)
        self._upgraded = True
        channel.start(self._http.trailing_data[0])

    def _channel(self, admitted: Admitted, subprotocol: str | None) -> Channel:
        options, session = self._context.conf.proxy, admitted.session
        vnc = session.console.console_type == ConsoleType.NOVNC
        return Channel(
            self._transport,
            admitted.target.transport,
            self._context.read_buffer,
            max_message_size=options.max_message_size,
            close_timeout=options.close_timeout,
            input_filter=admitted.input_filter,
            greeting=UserHandshake() if vnc else None,
            window=flow.Window() if subprotocol in flow.PROTOCOLS else None,
            rest=admitted.target.rest,
            released=session.channel_released,
            closed=self._closed,
        )
