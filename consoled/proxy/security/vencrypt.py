# SPDX-License-Identifier: Apache-2.0
"""The client's side of VeNCrypt 0.2 up to TLS, without I/O. The only subtype is X509None.

Specification: the community's RFB specification (rfbproto.rst), security type 19, sections "VeNCrypt" and
"Subtypes with TLS or X509 prefix". The reference server is QEMU's ui/vnc-auth-vencrypt.c. Subtypes with
anonymous TLS are not supported: they do not protect against a man in the middle.
"""

from __future__ import annotations

import enum
import struct

from consoled.proxy.security.base import COUNTED, SecurityFailed, SteppedExchange

X509_NONE = 260  # TLS with certificates, then no further authentication

_VERSION = (0, 2)


class _VeNCryptStep(enum.Enum):
    VERSION = 'VeNCrypt version'
    ACK = 'VeNCrypt version ack'
    COUNT = 'number of VeNCrypt subtypes'
    SUBTYPES = 'VeNCrypt subtypes'
    ACCEPT = 'VeNCrypt subtype ack'
    TLS = 'TLS'


class VeNCryptHandshake(SteppedExchange):
    """The client's side of VeNCrypt. It is done once TLS is established.

    The SecurityResult that follows is left to the caller.
    """

    def __init__(self) -> None:
        super().__init__(_VeNCryptStep.VERSION)

    @property
    def wants_tls(self) -> bool:
        return self._step is _VeNCryptStep.TLS and not self._done and self._failure is None

    def tls_started(self) -> bytes:
        if not self.wants_tls:
            return super().tls_started()
        self._finish()
        return b''

    def _version(self, message: bytes) -> bytes:
        major, minor = message
        if (major, minor) < _VERSION:
            raise SecurityFailed('vencrypt_version', f'{major}.{minor}')
        self._go(_VeNCryptStep.ACK)
        return bytes(_VERSION)

    def _ack(self, message: bytes) -> bytes:
        if message != b'\0':
            raise SecurityFailed('vencrypt_version', '0.2 was refused')
        self._go(_VeNCryptStep.COUNT)
        return b''

    def _count(self, message: bytes) -> bytes:
        self._go(_VeNCryptStep.SUBTYPES, 4 * message[0])  # at most 1020
        return b''

    def _subtypes(self, message: bytes) -> bytes:
        offered = struct.unpack(f'>{len(message) // 4}I', message)
        if X509_NONE not in offered:
            raise SecurityFailed('no_common_scheme', f'VeNCrypt subtypes {list(offered)}')
        self._go(_VeNCryptStep.ACCEPT)
        return struct.pack('>I', X509_NONE)

    def _accept(self, message: bytes) -> bytes:
        if message != b'\1':
            raise SecurityFailed('refused_by_hypervisor', 'VeNCrypt X509None')
        self._go(_VeNCryptStep.TLS)
        return b''

    def _unexpected(self, message: bytes) -> bytes:
        raise SecurityFailed('plaintext_after_tls')

    STEPS = {
        _VeNCryptStep.VERSION: (2, _version),
        _VeNCryptStep.ACK: (1, _ack),
        _VeNCryptStep.COUNT: (1, _count),
        _VeNCryptStep.SUBTYPES: (COUNTED, _subtypes),
        _VeNCryptStep.ACCEPT: (1, _accept),
        _VeNCryptStep.TLS: (1, _unexpected),
    }
