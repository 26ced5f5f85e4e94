# SPDX-License-Identifier: Apache-2.0
"""RFB 3.8 towards one client (RFC 6143; VeNCrypt 0.2; extensions as in the community's rfbproto)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from consoled.testing.guests.canvas import Rect
from consoled.testing.guests.pixels import RAW, Encoder, PixelFormat

NONE, VENCRYPT = 1, 19
_X509_NONE = 260

_VERSION = b'RFB 003.008\n'
_MAX_ENCODINGS = 1024
_MAX_CUT_TEXT = 2**20  # bytes
_MAX_FENCE = 64  # bytes, by its definition
_MAX_SCREENS = 16
_MAX_REPLIES = 16  # that wait for a client to read
_MAX_DAMAGE = 24  # rectangles; more become one
_PIECE = 2**15  # pixels that are encoded at once
_TLS_WITHIN = 10.0  # seconds

_QEMU_KEYS = -258
_DESKTOP_SIZE = -308
_FENCE = 248
_FENCE_REQUEST, _FENCE_FLAGS = 1 << 31, 0b111


class ProtocolError(Exception):
    """The client said what this does not understand."""


class Screen(Protocol):
    """What a client may see and do; the guest."""

    name: str
    bounds: Rect
    flood: bool  # noise is sent, whether anything has changed or not

    def cut(self, rect: Rect) -> bytes: ...
    def noise(self, length: int) -> bytes: ...
    def on_key(self, keysym: int, down: bool) -> None: ...
    def on_pointer(self, x: int, y: int, buttons: int) -> None: ...
    def on_cut_text(self, text: str) -> None: ...
    def on_update(self) -> None: ...


def _failure(reason: str) -> bytes:
    return struct.pack('>I', len(reason)) + reason.encode()


async def secure(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    types: Sequence[int],
    ssl_context: ssl.SSLContext | None,
) -> None:
    """Agree on the version and the security, up to the SecurityResult.

    :raises ProtocolError: the client wants something else; it has been told
    """
    writer.write(_VERSION)
    version = re.fullmatch(rb'RFB 003\.(\d{3})\n', await reader.readexactly(len(_VERSION)))
    if version is None or int(version[1]) < 8:
        writer.write(b'\0' + _failure('only RFB 3.8 is spoken here'))
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
    # nothing may run between these two: what the client says next is for TLS to read
    writer.write(b'\1')
    await writer.start_tls(context, ssl_handshake_timeout=_TLS_WITHIN)


class Session:
    """One client, past the security handshake.

    The reader acts on what the client says; the sender is the only one that writes. An update is sent when
    the client has asked for one and something has changed, piece by piece, each when the one before has left.
    """

    def __init__(self, screen: Screen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._screen = screen
        self._reader = reader
        self._writer = writer
        self._encoder = Encoder()
        self._encodings: frozenset[int] = frozenset()
        self._damage: list[Rect] = []
        self._asked: Rect | None = None
        self._replies: list[bytes] = []
        self._pseudo: list[bytes] = []  # rectangles of the next update that hold no pixels
        self._qemu_keys_told = False
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
        """ClientInit and ServerInit; clients always share the desktop."""
        await self._reader.readexactly(1)
        name = self._screen.name.encode(errors='replace')
        size = struct.pack('>HH', self._screen.bounds.width, self._screen.bounds.height)
        self._writer.write(size + PixelFormat().packed() + struct.pack('>I', len(name)) + name)
        await self._writer.drain()

    async def run(self) -> None:
        """Serve the client until it leaves.

        :raises ProtocolError: it sent a message that is unknown or too long
        """
        sender = asyncio.create_task(self._send())
        try:
            while True:
                (kind,) = await self._reader.readexactly(1)
                message = self._messages.get(kind)
                if message is None:
                    raise ProtocolError(f'message type {kind}')
                await message()
                await asyncio.sleep(0)  # reading what is buffered already would not let others run
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sender

    def damage(self, rects: Sequence[Rect]) -> None:
        """Note what the client does not have yet."""
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
        if _QEMU_KEYS in encodings and not self._qemu_keys_told:
            self._qemu_keys_told = True
            self._pseudo.append(struct.pack('>HHHHi', 0, 0, 0, 0, _QEMU_KEYS))

    async def _update_request(self) -> None:
        incremental, *area = await self._unpack('>BHHHH')
        rect = Rect(*area) & self._screen.bounds
        if not rect:
            return
        self._asked = rect if self._asked is None else self._asked | rect
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
        if length >= 0:  # below 0 it is the extended clipboard's, which was not offered
            self._screen.on_cut_text(data.decode('latin-1'))

    async def _continuous_updates(self) -> None:
        await self._unpack('>BHHHH')  # not offered: the client goes on asking

    async def _fence(self) -> None:
        flags, length = await self._unpack('>xxxIB')
        if length > _MAX_FENCE:
            raise ProtocolError('fence too long')
        payload = await self._reader.readexactly(length)
        if flags & _FENCE_REQUEST:
            if len(self._replies) >= _MAX_REPLIES:
                raise ProtocolError('fences whose answers are not read')
            head = struct.pack('>BxxxIB', _FENCE, flags & _FENCE_FLAGS, length)
            self._replies.append(head + payload)
            self._wake.set()

    async def _xvp(self) -> None:
        await self._unpack('>xBB')  # not offered: nobody shuts this guest down

    async def _set_desktop_size(self) -> None:
        _, _, screens = await self._unpack('>xHHBx')
        if screens > _MAX_SCREENS:
            raise ProtocolError('too many screens')
        await self._reader.readexactly(16 * screens)
        if _DESKTOP_SIZE in self._encodings and len(self._pseudo) < _MAX_REPLIES:
            # asked by this client (1), prohibited (1); and the one screen as it is
            size = self._screen.bounds[2:]
            reply = struct.pack('>HHHHi', 1, 1, *size, _DESKTOP_SIZE)
            self._pseudo.append(reply + struct.pack('>BxxxIHHHHI', 1, 0, 0, 0, *size, 0))
            self._wake.set()

    async def _qemu(self) -> None:
        (kind,) = await self._unpack('>B')
        if kind != 0:  # 1 is audio, which was not offered
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
        if self._asked is None or not (self._damage or self._pseudo):
            return
        area, self._asked = self._asked, None
        damage, self._damage = self._damage, []
        pseudo, self._pseudo = self._pseudo, []
        # what lies outside of what was asked for is sent another time
        self._damage = [rest for rect in damage for rest in rect - area]
        pieces = [piece for rect in damage for piece in _pieces(rect & area)]
        if not pieces and not pseudo:
            self._asked = area
            return
        self._writer.write(struct.pack('>BxH', 0, len(pseudo) + len(pieces)) + b''.join(pseudo))
        for piece in pieces:
            self._writer.write(self._encoder.encode(piece, self._screen.cut(piece)))
            await self._writer.drain()
        self._screen.on_update()

    async def _send_noise(self) -> None:
        if self._asked is None:
            return
        area, self._asked = self._asked, None
        self._damage.clear()
        pieces = list(_pieces(area))
        size = self._encoder.format.bits // 8
        self._writer.write(struct.pack('>BxH', 0, len(pieces)))
        for piece in pieces:
            header = struct.pack('>HHHHi', *piece, RAW)
            self._writer.write(header + self._screen.noise(piece.width * piece.height * size))
            await self._writer.drain()
        self._screen.on_update()


def _pieces(rect: Rect) -> list[Rect]:
    """A rectangle in bands of not too many pixels."""
    if not rect:
        return []
    rows = max(1, _PIECE // rect.width)
    bottom = rect.y + rect.height
    return [Rect(rect.x, y, rect.width, min(rows, bottom - y)) for y in range(rect.y, bottom, rows)]
