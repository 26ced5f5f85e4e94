# SPDX-License-Identifier: Apache-2.0
"""The server's side of RFB 3.8 for one client.

Sources: RFC 6143, the VeNCrypt 0.2 specification, and for extensions the community's rfbproto document.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from consoled.testing.guests.canvas import Rect
from consoled.testing.guests.rfb_encoding import RAW, Encoder, PixelFormat

NONE, VENCRYPT = 1, 19
_X509_NONE = 260

_VERSION = b'RFB 003.008\n'
_MAX_ENCODINGS = 1024
_MAX_CUT_TEXT = 2**20  # bytes
_MAX_FENCE = 64  # bytes, by definition
_MAX_SCREENS = 16
_MAX_REPLIES = 16  # replies queued for a client that does not read
_MAX_DAMAGE = 24  # rectangles; more are merged into one
_BAND_PIXELS = 2**15  # pixels encoded at a time
_TLS_TIMEOUT = 10.0  # seconds

_QEMU_KEYS = -258
_DESKTOP_SIZE = -308
_FENCE = 248
_FENCE_REQUEST, _FENCE_FLAGS = 1 << 31, 0b111


class ProtocolError(Exception):
    """The client sent something that violates the protocol or is not supported."""


class Screen(Protocol):
    """The guest's screen and input devices, as a session uses them.

    :ivar flood: send noise in reply to every request, whether or not the screen has changed
    """

    name: str
    bounds: Rect
    flood: bool

    def cut(self, rect: Rect) -> bytes:
        """Return the pixels of a rectangle, in the layout of ``Canvas``."""

    def noise(self, length: int) -> bytes:
        """Return ``length`` bytes of noise."""

    def on_key(self, keysym: int, down: bool) -> None:
        """Handle a key press or release."""

    def on_pointer(self, x: int, y: int, buttons: int) -> None:
        """Handle a pointer event; ``buttons`` is a bit mask."""

    def on_cut_text(self, text: str) -> None:
        """Handle text from the client's clipboard."""

    def on_update(self) -> None:
        """Handle the end of a framebuffer update that was sent."""


def _failure(reason: str) -> bytes:
    return struct.pack('>I', len(reason)) + reason.encode()


async def secure(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    types: Sequence[int],
    ssl_context: ssl.SSLContext | None,
) -> None:
    """Negotiate version and security type, up to and including SecurityResult.

    :param types: the security types to offer
    :param ssl_context: for VeNCrypt
    :raises ProtocolError: when there is no agreement; the client has received the reason
    """
    writer.write(_VERSION)
    version = re.fullmatch(rb'RFB 003\.(\d{3})\n', await reader.readexactly(len(_VERSION)))
    if version is None or int(version[1]) < 8:
        writer.write(b'\0' + _failure('only RFB 3.8 is supported'))
        raise ProtocolError('version')
    writer.write(bytes((len(types), *types)))
    chosen = (await reader.readexactly(1))[0]
    if chosen not in types:
        writer.write(struct.pack('>I', 1) + _failure('that security type was not offered'))
        raise ProtocolError(f'security type {chosen}')
    if chosen == VENCRYPT:
        assert ssl_context is not None
        await _vencrypt(reader, writer, ssl_context)
    writer.write(struct.pack('>I', 0))


async def _vencrypt(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
) -> None:
    writer.write(b'\0\2')
    if await reader.readexactly(2) != b'\0\2':
        writer.write(b'\1')
        raise ProtocolError('VeNCrypt version')
    writer.write(b'\0' + struct.pack('>BI', 1, _X509_NONE))
    (chosen,) = struct.unpack('>I', await reader.readexactly(4))
    if chosen != _X509_NONE:
        writer.write(b'\0')
        raise ProtocolError(f'VeNCrypt type {chosen}')
    # Nothing may run between these two lines: TLS has to read whatever the client sends next.
    writer.write(b'\1')
    await writer.start_tls(context, ssl_handshake_timeout=_TLS_TIMEOUT)


class RfbSession:
    """A session with one client, after the security handshake.

    ``run`` handles the client's messages; a second task does all the writing. It sends an update when the
    client has requested one and something has changed, band by band, each after the previous one has left.
    """

    def __init__(self, screen: Screen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._screen = screen
        self._reader = reader
        self._writer = writer
        self._encoder = Encoder()
        self._encodings: frozenset[int] = frozenset()
        self._damage: list[Rect] = []
        self._requested: Rect | None = None
        self._replies: list[bytes] = []
        self._pseudo: list[bytes] = []  # rectangles of pseudo-encodings for the next update
        self._qemu_keys_announced = False
        self._wake = asyncio.Event()
        self._messages: dict[int, Callable[[], Awaitable[None]]] = {
            0: self._set_pixel_format,
            2: self._set_encodings,
            3: self._update_request,
            4: self._key,
            5: self._pointer,
            6: self._cut_text,
            150: self._continuous_updates,
            _FENCE: self._fence,
            250: self._xvp,
            251: self._set_desktop_size,
            255: self._qemu,
        }

    async def open(self) -> None:
        """Exchange ClientInit and ServerInit. The desktop is always shared."""
        await self._reader.readexactly(1)
        name = self._screen.name.encode(errors='replace')
        size = struct.pack('>HH', self._screen.bounds.width, self._screen.bounds.height)
        self._writer.write(size + PixelFormat().packed() + struct.pack('>I', len(name)) + name)
        await self._writer.drain()

    async def run(self) -> None:
        """Serve the client until it disconnects.

        :raises ProtocolError: when it sends a message that is unknown or too long
        """
        sender = asyncio.create_task(self._send())
        try:
            while True:
                (kind,) = await self._reader.readexactly(1)
                message = self._messages.get(kind)
                if message is None:
                    raise ProtocolError(f'message type {kind}')
                await message()
                await asyncio.sleep(0)  # reads from the buffer do not yield to other tasks
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sender

    def damage(self, rects: Sequence[Rect]) -> None:
        """Mark rectangles as changed since the client's last update."""
        for rect in rects:
            if any(rect & old == rect for old in self._damage):
                continue
            self._damage = [old for old in self._damage if rect & old != old]
            self._damage.append(rect)
            if len(self._damage) > _MAX_DAMAGE:
                whole = self._damage[0]
                for each in self._damage:
                    whole |= each
                self._damage = [whole]
        self._wake.set()

    async def _unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, await self._reader.readexactly(struct.calcsize(form)))

    async def _set_pixel_format(self) -> None:
        try:
            self._encoder.format = PixelFormat.parse((await self._reader.readexactly(19))[3:])
        except ValueError as exc:
            raise ProtocolError(str(exc)) from None

    async def _set_encodings(self) -> None:
        (count,) = await self._unpack('>xH')
        if count > _MAX_ENCODINGS:
            raise ProtocolError('too many encodings')
        encodings = await self._unpack(f'>{count}i')
        self._encoder.choose(encodings)
        self._encodings = frozenset(encodings)
        if _QEMU_KEYS in encodings and not self._qemu_keys_announced:
            self._qemu_keys_announced = True
            self._pseudo.append(struct.pack('>HHHHi', 0, 0, 0, 0, _QEMU_KEYS))

    async def _update_request(self) -> None:
        incremental, *area = await self._unpack('>BHHHH')
        rect = Rect(*area) & self._screen.bounds
        if not rect:
            return
        self._requested = rect if self._requested is None else self._requested | rect
        self.damage([] if incremental else [rect])

    async def _key(self) -> None:
        down, keysym = await self._unpack('>BxxI')
        self._screen.on_key(keysym, bool(down))

    async def _pointer(self) -> None:
        buttons, x, y = await self._unpack('>BHH')
        self._screen.on_pointer(x, y, buttons)

    async def _cut_text(self) -> None:
        (length,) = await self._unpack('>xxxi')
        if abs(length) > _MAX_CUT_TEXT:
            raise ProtocolError('cut text too long')
        data = await self._reader.readexactly(abs(length))
        if length >= 0:  # a negative length is for the extended clipboard, which is not offered
            self._screen.on_cut_text(data.decode('latin-1'))

    async def _continuous_updates(self) -> None:
        await self._unpack('>BHHHH')  # not offered: the client has to go on requesting updates

    async def _fence(self) -> None:
        flags, length = await self._unpack('>xxxIB')
        if length > _MAX_FENCE:
            raise ProtocolError('fence too long')
        payload = await self._reader.readexactly(length)
        if flags & _FENCE_REQUEST:
            if len(self._replies) >= _MAX_REPLIES:
                raise ProtocolError('fence replies are not read')
            head = struct.pack('>BxxxIB', _FENCE, flags & _FENCE_FLAGS, length)
            self._replies.append(head + payload)
            self._wake.set()

    async def _xvp(self) -> None:
        await self._unpack('>xBB')  # not offered: clients cannot shut this guest down

    async def _set_desktop_size(self) -> None:
        _, _, screens = await self._unpack('>xHHBx')
        if screens > _MAX_SCREENS:
            raise ProtocolError('too many screens')
        await self._reader.readexactly(16 * screens)
        if _DESKTOP_SIZE in self._encodings and len(self._pseudo) < _MAX_REPLIES:
            # requested by this client (1), prohibited (1), followed by the unchanged layout
            size = self._screen.bounds[2:]
            reply = struct.pack('>HHHHi', 1, 1, *size, _DESKTOP_SIZE)
            self._pseudo.append(reply + struct.pack('>BxxxIHHHHI', 1, 0, 0, 0, *size, 0))
            self._wake.set()

    async def _qemu(self) -> None:
        (kind,) = await self._unpack('>B')
        if kind != 0:  # 1 is audio, which is not offered
            raise ProtocolError(f'QEMU message {kind}')
        down, keysym, _ = await self._unpack('>HII')
        self._screen.on_key(keysym, bool(down))

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            replies, self._replies = self._replies, []
            self._writer.write(b''.join(replies))
            await self._writer.drain()
            if self._screen.flood:
                await self._send_noise()
            else:
                await self._send_changes()

    async def _send_changes(self) -> None:
        if self._requested is None or not (self._damage or self._pseudo):
            return
        area, self._requested = self._requested, None
        damage, self._damage = self._damage, []
        pseudo, self._pseudo = self._pseudo, []
        # The damage outside of the requested area stays for a later update.
        self._damage = [rest for rect in damage for rest in rect - area]
        bands = [band for rect in damage for band in _bands(rect & area)]
        if not bands and not pseudo:
            self._requested = area
            return
        self._writer.write(struct.pack('>BxH', 0, len(pseudo) + len(bands)) + b''.join(pseudo))
        for band in bands:
            self._writer.write(self._encoder.encode(band, self._screen.cut(band)))
            await self._writer.drain()
        self._screen.on_update()

    async def _send_noise(self) -> None:
        if self._requested is None:
            return
        area, self._requested = self._requested, None
        self._damage.clear()
        bands = _bands(area)
        size = self._encoder.format.bits // 8
        self._writer.write(struct.pack('>BxH', 0, len(bands)))
        for band in bands:
            header = struct.pack('>HHHHi', *band, RAW)
            self._writer.write(header + self._screen.noise(band.width * band.height * size))
            await self._writer.drain()
        self._screen.on_update()


def _bands(rect: Rect) -> list[Rect]:
    """Split a rectangle into horizontal bands of at most ``_BAND_PIXELS`` pixels, or of one row."""
    if not rect:
        return []
    rows = max(1, _BAND_PIXELS // rect.width)
    bottom = rect.y + rect.height
    return [Rect(rect.x, y, rect.width, min(rows, bottom - y)) for y in range(rect.y, bottom, rows)]
