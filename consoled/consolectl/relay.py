# SPDX-License-Identifier: Apache-2.0
"""A serial console in the terminal, through a proxy as any user has it: the websocket, and how it ends.

The token is in the websocket's URL. So nothing here is logged, and no error has the URL in its text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import ssl
from typing import Any
from urllib import parse

from websockets import exceptions as ws_exceptions
from websockets.asyncio import client
from websockets.typing import Subprotocol

from consoled import version
from consoled.cli import errors
from consoled.consolectl.terminal import Keys, Screen

_OPEN_TIMEOUT = 15.0  # seconds; a proxy gives the manager 4, and the guest's console 5
_CLOSE_TIMEOUT = 2.0
_LAST_WORDS = 1.0  # seconds for what was typed before the escape key
_PING_INTERVAL = 20.0
_PING_TIMEOUT = 60.0  # a proxy does not answer while its guest takes no input, and ends that sooner
_LOOK = 0.05  # seconds between two looks whether the screen takes anything
_MAX_TEXT = 200  # characters

# Why a websocket was closed: code, words where the proxy has none, exit code, worth another try.
_CLOSED = {
    1000: ('closed', 'The console was closed.', errors.REFUSED, False),
    1001: ('connection_lost', 'The connection was given up.', errors.UNREACHABLE, True),
    1002: ('protocol_error', 'The proxy did not understand what was sent.', errors.INTERNAL, False),
    1006: ('connection_lost', 'The connection to the console proxy was lost.', errors.UNREACHABLE, True),
    1011: ('console_ended', 'The guest closed its console, or it failed.', errors.REFUSED, True),
    1012: ('proxy_restart', 'The console proxy is being restarted.', errors.UNREACHABLE, True),
    1013: ('try_later', 'The console service can not be reached.', errors.UNREACHABLE, True),
    4401: ('invalid_token', 'The console token is not valid or has expired.', errors.REFUSED, False),
    4403: ('revoked', 'Your access to this console was taken back.', errors.REFUSED, False),
    4404: ('console_gone', 'The console does not exist any more.', errors.REFUSED, False),
    4408: ('session_over', 'The time of this session is over.', errors.REFUSED, False),
    4409: ('taken_over', 'Somebody else has taken this console over.', errors.REFUSED, False),
}
_LOST = 1006

# The library would log what goes over the websocket, and its URL.
_SILENT = logging.Logger('consolectl', level=logging.CRITICAL + 1)


class Ended(errors.Failed):
    """The console can't be had, or not any more.

    :param again: whether it may be had at another try
    """

    def __init__(self, exit_code: int, code: str, message: str, hint: str = '', *, again: bool) -> None:
        super().__init__(exit_code, code, message, hint)
        self.again = again

    def without(self, secret: str) -> Ended:
        """The same, should what a peer has said of it repeat the secret."""
        return Ended(self.exit_code, self.code, str(self).replace(secret, '***'), self.hint, again=self.again)


def closed(code: int, text: str = '') -> Ended:
    """What a close code means."""
    unknown = ('closed', f'The console was closed (code {code}).', errors.REFUSED, False)
    name, words, exit_code, again = _CLOSED.get(code, unknown)
    return Ended(exit_code, name, _harmless(text) or words, again=again)


def _harmless(text: str) -> str:
    """What somebody else says, as far as it can be shown in a terminal."""
    return ''.join(char if char.isprintable() else '?' for char in text[:_MAX_TEXT]).strip()


def websocket_url(access_url: str, token: str) -> str:
    """The websocket of an access URL: of its page the one beside it, which the page opens too.

    :raises Ended: it has none
    """
    try:
        parts = parse.urlsplit(access_url)
        place = parts.hostname, parts.port  # may raise
    except ValueError:
        raise _bad_url() from None
    if place[0] and parts.scheme in ('ws', 'wss'):
        return parse.urlunsplit(parts._replace(fragment=''))
    if place[0] and parts.scheme in ('http', 'https'):
        path = parts.path.rpartition('/')[0] + '/'
        query = parse.urlencode({'token': token})
        return parse.urlunsplit(('ws' + parts.scheme[4:], parts.netloc, path, query, ''))
    raise _bad_url()


def _bad_url() -> Ended:
    return Ended(
        errors.REFUSED,
        'bad_access_url',
        'The access URL of the console is none of http, https, ws or wss.',
        'Check base_url on the compute host.',
        again=False,
    )


class _Connect(client.connect):
    def process_redirect(self, exc: Exception) -> Exception:
        """To nowhere else: a token is for its proxy."""
        return exc


async def connect(url: str, tls: ssl.SSLContext) -> client.ClientConnection:
    """Open the websocket.

    :raises Ended: it can't be opened
    """
    try:
        return await _Connect(
            url,
            ssl=tls if url.startswith('wss:') else None,
            subprotocols=[Subprotocol('binary')],
            additional_headers={'Accept': 'application/json'},
            user_agent_header=f'consolectl/{version.VERSION}',
            compression=None,
            open_timeout=_OPEN_TIMEOUT,
            close_timeout=_CLOSE_TIMEOUT,
            ping_interval=None,  # see Relay
            max_queue=2,  # what waits here is shown even after a ^C
            logger=_SILENT,
        )
    except ws_exceptions.InvalidURI:
        raise _bad_url() from None  # its text is the URL
    except ws_exceptions.InvalidStatus as exc:
        raise refused(exc.response.status_code, exc.response.body) from exc
    except (OSError, ws_exceptions.WebSocketException, ImportError) as exc:
        raise _unreachable(url, exc) from exc


def refused(status: int, body: bytes | bytearray | None) -> Ended:
    """What the answer to a handshake means."""
    try:
        answer = json.loads(body or b'')
        code, reason, again = str(answer['code']), str(answer['reason']), answer['retryable'] is True
    except (ValueError, TypeError, LookupError):  # of somebody on the way
        code, reason = 'connection_failed', f'The console proxy answers with HTTP status {status}.'
        again = status >= 500
    exit_code = errors.UNREACHABLE if status >= 500 else errors.REFUSED
    return Ended(exit_code, _harmless(code), _harmless(reason), again=again)


def _unreachable(url: str, error: Exception) -> Ended:
    place = parse.urlsplit(url).netloc.rpartition('@')[2]
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f'The certificate of the console proxy at {place} is refused: {error.verify_message}.'
        hint = 'The certificates of its authority are named with --ca.'
        return Ended(errors.REFUSED, 'certificate_refused', text, hint, again=False)
    if isinstance(error, TimeoutError):
        why = 'no answer in time'
    elif isinstance(error, ConnectionError) and error.errno:  # what asyncio says of it repeats the address
        why = os.strerror(error.errno)
    elif isinstance(error, OSError):
        why = error.strerror or 'no connection'
    elif isinstance(error, ImportError):  # for a proxy of another kind, that the environment names
        why = str(error)
    else:
        why = type(error).__name__
    text = f'The console proxy at {place} can not be reached ({_harmless(why)}).'
    return Ended(errors.UNREACHABLE, 'proxy_unreachable', text, again=isinstance(error, OSError))


class Relay:
    """The bytes between a terminal and a websocket.

    :param wait: seconds of silence after which it is over, once there is no more input
    """

    def __init__(self, connection: client.ClientConnection, keys: Keys, screen: Screen, wait: float) -> None:
        self._connection = connection
        self._keys = keys
        self._screen = screen
        self._wait = wait
        self._now = asyncio.get_running_loop().time
        self._heard = self._now()
        self._sent = asyncio.Event()

    async def run(self) -> Ended | None:
        """Until the input has ended (None), or the connection has. Can be cancelled.

        :raises OSError: the screen can't be written to
        """
        receiving = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._send())
        watching = asyncio.create_task(self._watch())
        tasks = (receiving, sending, watching)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if _succeeded(watching):
                return closed(_LOST)
            if _succeeded(sending) and not receiving.done():
                return None
            await asyncio.wait({receiving})  # of a connection that has ended it is the last to end
            return self._ending(receiving.exception())
        finally:
            if self._keys.ended and not receiving.done():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._sent.wait(), _LAST_WORDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    async def _close(self) -> None:
        """Say goodbye. The library would wait, without limit, for a proxy that takes nothing any more."""
        discarding = asyncio.create_task(self._discard())  # the answer comes after it
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
            self._heard = self._now()
            await self._screen.write(message if isinstance(message, bytes) else message.encode())

    async def _send(self) -> None:
        """Send all input, and wait until nothing has come for some time."""
        while data := await self._keys.take():
            await self._connection.send(data)
        self._sent.set()
        self._heard = self._now()
        while (left := self._heard + self._wait - self._now()) > 0 or self._screen.busy:
            await asyncio.sleep(max(left, _LOOK))

    async def _watch(self) -> None:
        """Return when the other side gives no sign of life.

        Neither side is expected to answer while it waits for a user who stopped the screen, or for a guest
        that takes no input.
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
        # what this side closed with, because of what the other one has sent; or the connection broke
        return closed(_LOST if error.sent is None else 1002)


def _succeeded(task: asyncio.Task[None]) -> bool:
    """Whether it has come to its end.

    :raises Exception: it failed, but not because of the connection
    """
    if not task.done():
        return False
    error = task.exception()
    if error is not None and not isinstance(error, ws_exceptions.ConnectionClosed):
        raise error
    return error is None
