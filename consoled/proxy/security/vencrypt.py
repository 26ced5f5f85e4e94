# SPDX-License-Identifier: Apache-2.0
"""VeNCrypt 0.2, the client's side, without I/O: up to TLS, subtype X509None only.

Source of the rules: the community's RFB specification (rfbproto.rst), sections "VeNCrypt" and "Subtypes with
TLS or X509 prefix", security type 19; QEMU's ui/vnc-auth-vencrypt.c is the server that matters. Subtypes with
anonymous TLS are no choice: they protect from nobody who can stand in between.
"""

from __future__ import annotations

import enum
import struct

from consoled.proxy.security.base import COUNTED, SecurityFailed, SteppedExchange

X509_NONE = 260  # TLS with certificates, then no further authentication

_VERSION = (0, 2)


class _Step(enum.Enum):
    VERSION = 'VeNCrypt version'
    ACK = 'VeNCrypt version ack'
    COUNT = 'number of VeNCrypt subtypes'
    SUBTYPES = 'VeNCrypt subtypes'
    ACCEPT = 'VeNCrypt subtype ack'
    TLS = 'TLS'


class VeNCryptClient(SteppedExchange):
    """Ends with TLS: done as soon as ``tls_started``; what follows (SecurityResult) is the caller's."""

    def __init__(self) -> None:
        super().__init__(_Step.VERSION)

    @property
    def wants_tls(self) -> bool:
        return self._step is _Step.TLS and not self._done and self._failure is None

    def tls_started(self) -> bytes:
        if not self.wants_tls:
            return super().tls_started()
        self._finish()
        return b''

    def _version(self, message: bytes) -> bytes:
        major, minor = message
        if (major, minor) < _VERSION:
            raise SecurityFailed('vencrypt_version', f'{major}.{minor}')
        self._go(_Step.ACK)
        return bytes(_VERSION)

    def _ack(self, message: bytes) -> bytes:
        if message != b'\0':
            raise SecurityFailed('vencrypt_version', '0.2 is refused')
        self._go(_Step.COUNT)
        return b''

    def _count(self, message: bytes) -> bytes:
        self._go(_Step.SUBTYPES, 4 * message[0])  # at most 1020
        return b''

    def _subtypes(self, message: bytes) -> bytes:
        offered = struct.unpack(f'>{len(message) // 4}I', message)
        if X509_NONE not in offered:
            raise SecurityFailed('no_common_scheme', f'VeNCrypt subtypes {list(offered)}')
        self._go(_Step.ACCEPT)
        return struct.pack('>I', X509_NONE)

    def _accept(self, message: bytes) -> bytes:
        if message != b'\1':
            raise SecurityFailed('refused_by_hypervisor', 'VeNCrypt X509None')
        self._go(_Step.TLS)
        return b''

    def _nothing(self, message: bytes) -> bytes:
        raise SecurityFailed('plaintext_after_tls')

    STEPS = {
        _Step.VERSION: (2, _version),
        _Step.ACK: (1, _ack),
        _Step.COUNT: (1, _count),
        _Step.SUBTYPES: (COUNTED, _subtypes),
        _Step.ACCEPT: (1, _accept),
        _Step.TLS: (1, _nothing),
    }
