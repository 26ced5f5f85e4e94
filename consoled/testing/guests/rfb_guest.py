# SPDX-License-Identifier: Apache-2.0
"""A guest with a VNC console: an RFB server whose desktop shows what reaches it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import ssl
import time
from collections.abc import Sequence
from typing import ClassVar

from consoled.testing.guests import desktop, rfb
from consoled.testing.guests.base import Guest
from consoled.testing.guests.canvas import Color, Rect

_SECURITY = {
    'none': ((rfb.NONE,), 'security None'),
    'vencrypt': ((rfb.VENCRYPT,), 'VeNCrypt X509None'),
    'both': ((rfb.VENCRYPT, rfb.NONE), 'VeNCrypt or None'),
}
_MAX_SIDE = 2048  # pixels; the most that one rectangle of Tight may be wide
_MAX_CLIENTS = 100
_KEPT = 10_000  # recorded keys
_HANDSHAKE_WITHIN = 30.0  # seconds
_FADE = 0.06  # seconds between two steps of the pointer's trail
_NOISE = 2**18  # bytes to cut noise from


class RfbGuest(Guest):
    """An RFB 3.8 server; its clients share one desktop.

    What reaches it is there for tests, from any thread: ``keys`` (the keysyms that were pressed, the last
    10,000), ``text`` (what they typed), ``pointer`` (x, y, buttons; or None), ``cut_text`` (or None),
    ``viewers`` (clients past their handshake), ``updates`` (sent, to all clients), ``errors`` (what
    clients said that was not understood, and failures of TLS, the last 100).

    Two things of the picture are fixed: ``MARK`` is a place in the middle of a block, 13 pixels wide and
    high, of a colour that is nowhere else; ``TEXT_BOX`` is the rectangle that shows what was typed.

    :param security: ``none``, ``vencrypt`` (0.2, X509None only), or ``both`` for the client to choose
    :param ssl_context: the server's side, for VeNCrypt; it says whether clients need a certificate
    :param flood: noise instead of the desktop, never compressed, new whenever a client asks
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
            raise ValueError('VeNCrypt needs an ssl_context, and only VeNCrypt does')
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
        self._noise = random.Random(name).randbytes(_NOISE) if flood else b''
        self._viewers: set[rfb.Session] = set()
        self._started = time.monotonic()
        self._clock: asyncio.Task[None] | None = None
        self._fader: asyncio.Task[None] | None = None

    @property
    def text(self) -> str:
        """What was typed into the line that ``TEXT_BOX`` shows."""
        return self._desktop.text

    @property
    def viewers(self) -> int:
        """Clients that see the desktop now: past their handshake."""
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
            async with asyncio.timeout(_HANDSHAKE_WITHIN):
                await rfb.secure(reader, writer, self._types, self._ssl_context)
                session = rfb.Session(self, reader, writer)
                await session.open()
        except (rfb.ProtocolError, ssl.SSLError) as exc:
            self._note(exc)  # and what the client was told leaves before the connection is closed
            return
        try:
            await self._view(session)
        except rfb.ProtocolError as exc:
            self._note(exc)
            writer.transport.abort()  # it may not even read

    def _note(self, exc: Exception) -> None:
        self.errors = [*self.errors, str(exc)][-100:]

    async def _view(self, session: rfb.Session) -> None:
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
            await asyncio.sleep(1.01 - time.time() % 1)  # not early: the second has to be the next one
            self._tick()
        self._clock = None

    async def _fade(self) -> None:
        while self._desktop.fading:
            await asyncio.sleep(_FADE)
            self._changed(self._desktop.fade())
        self._fader = None

    def _changed(self, rects: Sequence[Rect]) -> None:
        for session in self._viewers:
            session.damage(rects)

    # what sessions call

    def cut(self, rect: Rect) -> bytes:
        """The desktop's pixels in a rectangle."""
        return self._desktop.screen.cut(rect)

    def noise(self, length: int) -> bytes:
        """So many bytes of noise; at most a quarter of a mebibyte."""
        offset = random.randrange(_NOISE - length + 1)
        return self._noise[offset : offset + length]

    def on_key(self, keysym: int, down: bool) -> None:
        if down:
            self.keys.append(keysym)
            del self.keys[:-_KEPT]
        self._changed(self._desktop.key(keysym, down))

    def on_pointer(self, x: int, y: int, buttons: int) -> None:
        self.pointer = (x, y, buttons)
        self._changed(self._desktop.point(x, y, buttons))
        if self._fader is None and self._desktop.fading:
            self._fader = asyncio.create_task(self._fade())

    def on_cut_text(self, text: str) -> None:
        self.cut_text = text

    def on_update(self) -> None:
        self.updates += 1
