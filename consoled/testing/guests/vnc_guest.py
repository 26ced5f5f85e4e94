# SPDX-License-Identifier: Apache-2.0
"""Fake guest with a VNC console: an RFB server with a desktop that shows the input it receives."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import ssl
import time
from collections.abc import Sequence
from typing import ClassVar

from consoled.testing.guests import desktop, rfb_session
from consoled.testing.guests.base import FakeGuest
from consoled.testing.guests.canvas import Color, Rect

_SECURITY = {
    'none': ((rfb_session.NONE,), 'security None'),
    'vencrypt': ((rfb_session.VENCRYPT,), 'VeNCrypt X509None'),
    'both': ((rfb_session.VENCRYPT, rfb_session.NONE), 'VeNCrypt or None'),
}
_MAX_SIDE = 2048  # pixels; the maximum width of a rectangle in Tight encoding
_MAX_CLIENTS = 100
_MAX_KEYS = 10_000  # recorded keys
_HANDSHAKE_TIMEOUT = 30.0  # seconds
_FADE_INTERVAL = 0.06  # seconds between two steps of the pointer's trail
_NOISE_SIZE = 2**18  # bytes


class VncGuest(FakeGuest):
    """An RFB 3.8 server whose clients share one desktop.

    The attributes may be read from any thread.

    :param security: ``none``, ``vencrypt`` (0.2, X509None only), or ``both`` to let the client choose
    :param ssl_context: the server's context for VeNCrypt; it decides whether clients need a certificate
    :param flood: send new, uncompressed noise in reply to every request, instead of the desktop
    :cvar MARK: position and colour of a pixel in the middle of a block of 13 by 13 pixels; no other pixel of
        the desktop has that colour
    :cvar TEXT_BOX: the rectangle that shows the typed text
    :ivar keys: keysyms of the last 10,000 key presses
    :ivar text: the text that was typed with them
    :ivar pointer: the last pointer event as (x, y, buttons), or None
    :ivar cut_text: the last text from a client's clipboard, or None
    :ivar viewers: number of clients that have completed the handshake
    :ivar updates: number of framebuffer updates sent to all clients
    :ivar errors: the last 100 protocol violations and TLS failures
    """

    MARK: ClassVar[tuple[tuple[int, int], Color]] = (
        (desktop.MARK_BOX.x + 6, desktop.MARK_BOX.y + 6),
        desktop.MARK_COLOR,
    )
    TEXT_BOX: ClassVar[Rect] = desktop.TEXT_BOX

    def __init__(
        self,
        host: str = '127.0.0.1',
        port: int = 0,
        *,
        name: str = 'desktop',
        width: int = 640,
        height: int = 400,
        security: str = 'none',
        ssl_context: ssl.SSLContext | None = None,
        flood: bool = False,
    ) -> None:
        super().__init__(host, port, name=name, clients=_MAX_CLIENTS)
        if not (desktop.MIN_WIDTH <= width <= _MAX_SIDE and desktop.MIN_HEIGHT <= height <= _MAX_SIDE):
            raise ValueError(f'a desktop of {width} x {height} is too small or too large')
        if (ssl_context is None) != (security == 'none'):
            raise ValueError('ssl_context is required for VeNCrypt and not allowed without it')
        self._types, described = _SECURITY[security]
        self._ssl_context = ssl_context
        self.keys: list[int] = []
        self.pointer: tuple[int, int, int] | None = None
        self.cut_text: str | None = None
        self.updates = 0
        self.errors: list[str] = []
        subtitle = f'{width} x {height}, RFB 3.8, {described}'
        self._desktop = desktop.Desktop(name, subtitle, width, height)
        self.bounds = self._desktop.bounds
        self.flood = flood
        self._noise = random.Random(name).randbytes(_NOISE_SIZE) if flood else b''
        self._viewers: set[rfb_session.RfbSession] = set()
        self._started = time.monotonic()
        self._clock: asyncio.Task[None] | None = None
        self._fader: asyncio.Task[None] | None = None

    @property
    def text(self) -> str:
        """The typed text that ``TEXT_BOX`` shows."""
        return self._desktop.text

    @property
    def viewers(self) -> int:
        """The number of clients that have completed the handshake."""
        return len(self._viewers)

    async def start(self) -> None:
        await super().start()
        self._started = time.monotonic()

    async def stop(self) -> None:
        await super().stop()
        for task in (self._clock, self._fader):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._clock = self._fader = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                await rfb_session.secure(reader, writer, self._types, self._ssl_context)
                session = rfb_session.RfbSession(self, reader, writer)
                await session.open()
        except (rfb_session.ProtocolError, ssl.SSLError) as exc:
            self._note(exc)  # returning closes the connection after the client has received the reason
            return
        try:
            await self._view(session)
        except rfb_session.ProtocolError as exc:
            self._note(exc)
            writer.transport.abort()  # the client may not be reading

    def _note(self, exc: Exception) -> None:
        self.errors = [*self.errors, str(exc)][-100:]

    async def _view(self, session: rfb_session.RfbSession) -> None:
        self._viewers.add(session)
        self._tick()
        if self._clock is None and not self.flood:
            self._clock = asyncio.create_task(self._run_clock())
        try:
            await session.run()
        finally:
            self._viewers.discard(session)
            self._desktop.release_all()
            self._tick()

    def _tick(self) -> None:
        clients = f'{self.viewers} client' + ('' if self.viewers == 1 else 's')
        up = datetime.timedelta(seconds=int(time.monotonic() - self._started))
        self._changed(self._desktop.tick(datetime.datetime.now(), f'{clients}   up {up}'))

    async def _run_clock(self) -> None:
        while self._viewers:
            await asyncio.sleep(1.01 - time.time() % 1)  # until just after the next full second
            self._tick()
        self._clock = None

    async def _fade(self) -> None:
        while self._desktop.fading:
            await asyncio.sleep(_FADE_INTERVAL)
            self._changed(self._desktop.fade())
        self._fader = None

    def _changed(self, rects: Sequence[Rect]) -> None:
        for session in self._viewers:
            session.damage(rects)

    # the protocol rfb_session.Screen

    def cut(self, rect: Rect) -> bytes:
        """Return the desktop's pixels in a rectangle."""
        return self._desktop.screen.cut(rect)

    def noise(self, length: int) -> bytes:
        """Return ``length`` bytes of noise; at most 256 KiB."""
        offset = random.randrange(_NOISE_SIZE - length + 1)
        return self._noise[offset : offset + length]

    def on_key(self, keysym: int, down: bool) -> None:
        """Record a key press, and show it."""
        if down:
            self.keys.append(keysym)
            del self.keys[:-_MAX_KEYS]
        self._changed(self._desktop.key(keysym, down))

    def on_pointer(self, x: int, y: int, buttons: int) -> None:
        """Record a pointer event, and show it."""
        self.pointer = (x, y, buttons)
        self._changed(self._desktop.point(x, y, buttons))
        if self._fader is None and self._desktop.fading:
            self._fader = asyncio.create_task(self._fade())

    def on_cut_text(self, text: str) -> None:
        """Record text from a client's clipboard."""
        self.cut_text = text

    def on_update(self) -> None:
        """Count an update that was sent."""
        self.updates += 1
