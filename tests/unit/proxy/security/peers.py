# SPDX-License-Identifier: Apache-2.0
"""Independent implementations of the peers of each exchange, and ways to connect both in memory.

A peer is a generator that yields ``('send', bytes)``, ``('read', n)`` to get n bytes, or ``('tls',)``.
"""

import struct
from typing import NamedTuple

from hypothesis import strategies as st

from consoled.proxy.security.base import SecurityFailed

# positions at which to split a stream, as fractions of its length
cuts = st.lists(st.floats(0, 1), max_size=8)


def pieces(data, at):
    """Split ``data`` at fractions of its length."""
    positions = [0, *sorted(int(fraction * len(data)) for fraction in at), len(data)]
    return [data[start:end] for start, end in zip(positions, positions[1:], strict=False)]


def bytewise(data):
    return [data[at : at + 1] for at in range(len(data))]


class Result(NamedTuple):
    code: str | None
    detail: str
    sent: bytes
    done: bool
    rest: bytes


def play(exchange, *streams):
    """Feed an exchange lists of pieces, establishing TLS between one list and the next."""
    sent = exchange.start()
    try:
        for number, stream in enumerate(streams):
            if number:
                sent += exchange.tls_started()
            for piece in stream:
                sent += exchange.receive(piece)
    except SecurityFailed as failed:
        return Result(failed.code, failed.detail, sent + failed.farewell, exchange.done, exchange.rest())
    return Result(None, '', sent, exchange.done, exchange.rest())


def reason(text):
    return struct.pack('>I', len(text)) + text


def guest(types=b'\1', *, version=b'RFB 003.008\n', subtypes=(260,), result=0, why=b'no', vencrypt=(0, 2)):
    """The VNC server of a hypervisor."""
    yield 'send', version
    assert (yield 'read', 12) == b'RFB 003.008\n'
    yield 'send', bytes([len(types)]) + types
    if not types:
        yield 'send', reason(why)
        return
    chosen = (yield 'read', 1)[0]
    assert chosen in types
    if chosen == 19:
        yield 'send', bytes(vencrypt)
        assert (yield 'read', 2) == b'\0\2'
        yield 'send', b'\0' + struct.pack(f'>B{len(subtypes)}I', len(subtypes), *subtypes)
        (subtype,) = struct.unpack('>I', (yield 'read', 4))
        assert subtype in subtypes
        yield 'send', b'\1'
        yield ('tls',)
    yield 'send', struct.pack('>I', result)
    if result:
        yield 'send', reason(why)


def viewer(choice=1, version=b'RFB 003.008\n'):
    """A user's client."""
    assert (yield 'read', 12) == b'RFB 003.008\n'
    yield 'send', version
    (count,) = yield 'read', 1
    types = yield 'read', count
    assert types == b'\1'
    yield 'send', bytes([choice])
    (result,) = struct.unpack('>I', (yield 'read', 4))
    if result:
        (length,) = struct.unpack('>I', (yield 'read', 4))
        raise Refused((yield 'read', length))


class Refused(Exception):
    """The peer received a refusal."""


class Wire:
    """An exchange connected to a peer. ``log`` has what the exchange sent, and 'tls'."""

    def __init__(self, exchange, peer, split=bytewise):
        self.exchange = exchange
        self.peer = peer
        self.split = split
        self.log = []
        self.to_peer = b''
        self.secured = False

    def run(self):
        """Run the handshake until the peer is done; SecurityFailed and Refused propagate."""
        self._sent(self.exchange.start())
        answer = None
        while True:
            try:
                what, *value = self.peer.send(answer)
            except StopIteration:
                return self
            answer = None
            if what == 'send':
                for piece in self.split(value[0]):
                    self._receive(piece)
            elif what == 'read':
                answer, self.to_peer = self.to_peer[: value[0]], self.to_peer[value[0] :]
                assert len(answer) == value[0], 'the exchange and the peer wait for each other'
            else:
                assert self.exchange.wants_tls
                assert not self.to_peer
                self.log.append('tls')
                self._sent(self.exchange.tls_started())

    def _receive(self, piece):
        try:
            self._sent(self.exchange.receive(piece))
        except SecurityFailed as failed:
            self._sent(failed.farewell)
            if failed.farewell:
                self._drain()
            raise

    def _drain(self):
        """Let the peer read the farewell."""
        what, *value = self.peer.send(None)
        while what == 'read':
            answer, self.to_peer = self.to_peer[: value[0]], self.to_peer[value[0] :]
            what, *value = self.peer.send(answer)

    def _sent(self, data):
        if data:
            self.log.append(data)
            self.to_peer += data
