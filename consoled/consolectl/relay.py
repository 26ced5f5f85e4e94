# SPDX-License-Identifier: Apache-2.0
"""The websocket of a serial console: connect through a proxy as any user does, relay, explain the end.

The access URL and the handshake contain the token. So nothing is logged here, and no error text has a URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import ssl
from collections.abc import Callable
from typing import Any
from urllib import parse

from websockets import exceptions as ws_exceptions
from websockets.asyncio import client
from websockets.typing import Subprotocol

from consoled import printable, version
from consoled.cli import errors
from consoled.consolectl.terminal import Keys, Screen
from consoled.proxy import flow
from consoled.proxy.close_codes import EXPLANATIONS, CloseCode, Explanation, Retry
from consoled.proxy.handshake import TOKEN_PROTOCOL

_OPEN_TIMEOUT = 15.0  # seconds; a proxy waits 4 for the manager and 5 for the guest's console
_CLOSE_TIMEOUT = 2.0
_SEND_TIMEOUT = 1.0  # seconds to send what was typed before the escape key
_PING_INTERVAL = 20.0
_PING_TIMEOUT = 60.0  # a proxy does not answer while its guest accepts no input, and ends that earlier
_POLL_INTERVAL = 0.05  # seconds between checks whether the screen is still busy
_MAX_TEXT = 200  # characters
_ACKNOWLEDGED = 16 * 1024  # bytes that one acknowledgement covers, at least

# A connection that ended without a close frame has this code (RFC 6455, section 7.1.5).
_LOST = 1006

# What reading a peer's JSON may raise: RecursionError, for one that is nested deeply.
_UNREADABLE = (ValueError, TypeError, LookupError, RecursionError)

# What a library closes a websocket with, on either side: its own words are not for users.
_BY_LIBRARIES = (1002, 1003, 1007, 1008, 1009, 1010)

# Exit codes by the names of close codes; others are refusals.
_EXIT_CODES = {
    'connection_lost': errors.UNREACHABLE,
    'proxy_restart': errors.UNREACHABLE,
    'try_later': errors.UNREACHABLE,
    'protocol_error': errors.INTERNAL,
    'message_too_big': errors.INTERNAL,
}

# The library would log the traffic and the URL.
_NULL_LOGGER = logging.Logger('consolectl', level=logging.CRITICAL + 1)


class Ended(errors.Failed):
    """The console cannot be opened, or its session has ended.

    :param retryable: whether a new attempt may succeed
    """

    def __init__(self, exit_code: int, code: str, message: str, hint: str = '', *, retryable: bool) -> None:
        super().__init__(exit_code, code, message, hint)
        self.retryable = retryable

    def without(self, secret: str) -> Ended:
        """Return a copy that masks the secret, which the text of a peer may repeat."""
        return Ended(
            self.exit_code, self.code, str(self).replace(secret, '***'), self.hint, retryable=self.retryable
        )


def closed(code: int, text: str = '') -> Ended:
    """Return what a close code means.

    :param text: the reason that the proxy sent with it
    """
    explanation = _explain(code)
    return Ended(
        _EXIT_CODES.get(explanation.name, errors.REFUSED),
        explanation.name,
        (code not in _BY_LIBRARIES and _printable(text)) or explanation.text,
        retryable=explanation.retry is Retry.AUTOMATIC,
    )


def _explain(code: int) -> Explanation:
    if code == _LOST:
        text = 'The connection to the console proxy was lost.'
        return Explanation('connection_lost', text, Retry.AUTOMATIC)
    try:
        return EXPLANATIONS[CloseCode(code)]
    except ValueError:
        return Explanation('closed', f'The console was closed (code {code}).', Retry.NEVER)


def _printable(text: str) -> str:
    """Make the text of a peer short, and safe to show in a terminal."""
    return printable.line(text[:_MAX_TEXT].strip())


def websocket_url(access_url: str) -> str:
    """Return the websocket URL for an access URL, without the token: load balancers log URLs.

    If the access URL is that of a page, this is the websocket beside it, which the page would open too.

    :raises Ended: the URL has another scheme, or no host
    """
    try:
        parts = parse.urlsplit(access_url)
        host, _ = parts.hostname, parts.port  # both may raise
    except ValueError:
        raise _bad_url() from None
    if host and parts.scheme in ('ws', 'wss'):
        kept = [(name, value) for name, value in parse.parse_qsl(parts.query, True) if name != 'token']
        return parse.urlunsplit(parts._replace(query=parse.urlencode(kept), fragment=''))
    if host and parts.scheme in ('http', 'https'):
        path = parts.path.rpartition('/')[0] + '/'
        return parse.urlunsplit(('ws' + parts.scheme[4:], parts.netloc, path, '', ''))
    raise _bad_url()


def _bad_url() -> Ended:
    return Ended(
        errors.REFUSED,
        'bad_access_url',
        'The access URL of the console is not a valid http, https, ws or wss URL.',
        'Check base_url on its compute host.',
        retryable=False,
    )


class _Connect(client.connect):
    def process_redirect(self, exc: Exception) -> Exception:
        """Refuse redirects: a token is meant for its own proxy only."""
        return exc


async def connect(url: str, token: str, tls: ssl.SSLContext) -> client.ClientConnection:
    """Open the websocket. The token is one of the subprotocols; the proxy selects the other one.

    :raises Ended: the proxy refused it, or cannot be reached
    """
    try:
        return await _Connect(
            url,
            ssl=tls if url.startswith('wss:') else None,
            subprotocols=[Subprotocol(name) for name in (*flow.PROTOCOLS, 'binary', TOKEN_PROTOCOL + token)],
            additional_headers={'Accept': 'application/json'},
            user_agent_header=f'consolectl/{version.VERSION}',
            compression=None,
            open_timeout=_OPEN_TIMEOUT,
            close_timeout=_CLOSE_TIMEOUT,
            ping_interval=None,  # Relay sends its own
            max_queue=2,  # messages that wait here are still shown after ^C
            logger=_NULL_LOGGER,
        )
    except ws_exceptions.InvalidURI:
        raise _bad_url() from None  # the original error contains the URL
    except ws_exceptions.InvalidStatus as exc:
        raise refused(exc.response.status_code, exc.response.body) from exc
    except (OSError, ws_exceptions.WebSocketException, ImportError) as exc:
        raise _unreachable(url, exc) from exc


def refused(status: int, body: bytes | bytearray | None) -> Ended:
    """Return what an HTTP answer to the handshake means."""
    try:
        answer = json.loads(body or b'')
        code, reason, retryable = str(answer['code']), str(answer['reason']), answer['retryable'] is True
    except _UNREADABLE:  # not from consoled-proxy, but from a server in between
        code, reason = 'connection_failed', f'The console proxy answered with HTTP status {status}.'
        retryable = status >= 500
    exit_code = errors.UNREACHABLE if status >= 500 else errors.REFUSED
    return Ended(exit_code, _printable(code), _printable(reason), retryable=retryable)


def _unreachable(url: str, error: Exception) -> Ended:
    address = parse.urlsplit(url).netloc.rpartition('@')[2]
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f'The certificate of the console proxy at {address} is not trusted: {error.verify_message}.'
        hint = 'Use --ca for the certificates of its authority.'
        return Ended(errors.REFUSED, 'certificate_refused', text, hint, retryable=False)
    if isinstance(error, TimeoutError):
        why = 'no answer in time'
    elif isinstance(error, ConnectionError) and error.errno:  # asyncio's own text repeats the address
        why = os.strerror(error.errno)
    elif isinstance(error, OSError):
        why = error.strerror or 'no connection'
    elif isinstance(error, ImportError):
        why = 'the environment names a SOCKS proxy, which needs the package python-socks'
    elif isinstance(error, (ws_exceptions.ProxyError, ws_exceptions.InvalidProxy)):
        why = 'the HTTP or SOCKS proxy that the environment names does not connect'
    else:
        why = 'its answer is not that of a websocket'
    text = f'The console proxy at {address} cannot be reached ({_printable(why)}).'
    return Ended(errors.UNREACHABLE, 'proxy_unreachable', text, retryable=isinstance(error, OSError))


class Relay:
    """Relay of bytes between a terminal and a websocket.

    :param wait: seconds of silence to wait for after the end of the input
    :param on_port: called with the number of the serial port, if it is not the one of the token
    """

    def __init__(
        self,
        connection: client.ClientConnection,
        keys: Keys,
        screen: Screen,
        wait: float,
        on_port: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._screen = screen
        self._wait = wait
        self._on_port = on_port
        self._now = asyncio.get_running_loop().time
        self._last_received = self._now()
        self._sent = asyncio.Event()
        self._shown = 0  # bytes
        self._to_acknowledge = asyncio.Event()

    async def run(self) -> Ended | None:
        """Relay until the input or the connection ends. May be cancelled.

        :returns: why the connection ended; None at the end of the input
        :raises OSError: the screen cannot be written
        """
        receiving = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._send())
        checking = asyncio.create_task(self._check_liveness())
        acknowledging = asyncio.create_task(self._acknowledge())
        tasks = (receiving, sending, checking, acknowledging)
        try:
            await asyncio.wait(tasks[:3], return_when=asyncio.FIRST_COMPLETED)
            if _succeeded(checking):
                return closed(_LOST)
            if _succeeded(sending) and not receiving.done():
                return None
            await asyncio.wait({receiving})  # it ends last, after all that was received is shown
            return self._ending(receiving.exception())
        finally:
            if self._keys.ended and not receiving.done():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._sent.wait(), _SEND_TIMEOUT)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    async def _close(self) -> None:
        """Close the websocket. The library alone would wait without limit for a proxy that reads nothing."""
        discarding = asyncio.create_task(self._discard())  # the close frame is queued behind other messages
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connection.close(), _CLOSE_TIMEOUT)
        self._connection.transport.abort()
        discarding.cancel()

    async def _discard(self) -> None:
        with contextlib.suppress(ws_exceptions.ConnectionClosed):
            while True:
                await self._connection.recv()

    async def _receive(self) -> None:
        while True:
            message: Any = await self._connection.recv()
            self._last_received = self._now()
            if isinstance(message, str) and self._connection.subprotocol == flow.SERIAL:
                self._notice(message)
                continue
            data = message if isinstance(message, bytes) else message.encode()
            await self._screen.write(data)
            self._shown += len(data)
            self._to_acknowledge.set()

    def _notice(self, message: str) -> None:
        try:
            number = json.loads(message)['serial_port']
        except _UNREADABLE:
            return
        if isinstance(number, int):
            self._on_port(number)

    async def _acknowledge(self) -> None:
        """Tell the proxy what is shown, so that it holds the guest back while this screen is slow.

        What is on its way to the screen precedes the echo of ^C. This is a task of its own: a guest that
        takes no input may be waiting for its output to be taken.
        """
        if self._connection.subprotocol not in flow.PROTOCOLS:
            return
        acknowledged = 0
        while True:
            await self._to_acknowledge.wait()
            self._to_acknowledge.clear()
            if self._shown - acknowledged >= _ACKNOWLEDGED:
                acknowledged = self._shown
                await self._connection.send(str(acknowledged))

    async def _send(self) -> None:
        """Send all input, then wait until the guest has been silent for ``wait`` seconds."""
        while data := await self._keys.take():
            await self._connection.send(data)
        self._sent.set()
        self._last_received = self._now()
        while (left := self._last_received + self._wait - self._now()) > 0 or self._screen.busy:
            await asyncio.sleep(max(left, _POLL_INTERVAL))

    async def _check_liveness(self) -> None:
        """Return when the other side no longer answers pings.

        No answer is expected while this side waits for a user who stopped the screen, or the other side for
        a guest that accepts no input.
        """
        while True:
            await asyncio.sleep(_PING_INTERVAL)
            if self._screen.busy or self._keys.waiting:
                continue
            try:
                async with asyncio.timeout(_PING_TIMEOUT):
                    await (await self._connection.ping())
            except TimeoutError:
                if not (self._screen.busy or self._keys.waiting):
                    return

    @staticmethod
    def _ending(error: BaseException | None) -> Ended:
        if not isinstance(error, ws_exceptions.ConnectionClosed):
            assert error is not None
            raise error
        if error.rcvd is not None:
            return closed(error.rcvd.code, error.rcvd.reason)
        # this side closed it because of a frame that violates the protocol; or the connection broke
        return closed(_LOST if error.sent is None else 1002)


def _succeeded(task: asyncio.Task[None]) -> bool:
    """Return whether the task has finished without an error.

    :raises Exception: its error, unless the connection was closed
    """
    if not task.done():
        return False
    error = task.exception()
    if error is not None and not isinstance(error, ws_exceptions.ConnectionClosed):
        raise error
    return error is None
