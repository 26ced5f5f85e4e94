# SPDX-License-Identifier: Apache-2.0
"""Both sides of the RFB security handshake, without I/O (RFC 6143, section 7.1).

In ``HypervisorHandshake`` the proxy is the client of a guest's VNC server, in ``UserHandshake`` it is the
server of a user's client. Neither enters the initialization phase: the user's own ClientInit is the first
message that is relayed.

Both support version 3.8 only: in 3.3 the server chooses the security type, and before 3.8 the type None has
no SecurityResult. A server with a higher version (Apple's 003.889, RealVNC's 004.001 and 005.000) is answered
with 003.008: its number is the highest that it supports, and the client's answer decides (section 7.1.1). A
server that does not follow this rule fails the handshake, but cannot weaken it.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Sequence

from consoled.proxy.security.base import ANY, COUNTED, SecurityFailed, SteppedExchange, printable
from consoled.proxy.security.vencrypt import VeNCryptHandshake

MAX_REASON = 4096  # bytes

# scheme -> security type (RFC 6143, section 7.2; the IANA registry for VeNCrypt)
SCHEMES = {'none': 1, 'vencrypt': 19}

_VERSION_3_8 = b'RFB 003.008\n'
_VERSION = re.compile(rb'RFB ([0-9]{3})\.([0-9]{3})\n')
_NONE = SCHEMES['none']
_OK, _FAILED, _TOO_MANY = range(3)  # SecurityResult (section 7.1.3; 2: the community's specification)


def _parse_version(message: bytes) -> tuple[int, int] | None:
    match = _VERSION.fullmatch(message)
    return (int(match[1]), int(match[2])) if match else None


class _RFBStep(enum.Enum):
    VERSION = 'RFB version'
    COUNT = 'number of security types'
    TYPES = 'security types'
    VENCRYPT = 'VeNCrypt'
    RESULT = 'security result'
    REASON_LENGTH = 'length of reason'
    REASON = 'reason'
    CHOICE = 'choice of security type'


class HypervisorHandshake(SteppedExchange):
    """The client's side, towards a hypervisor. It is done with SecurityResult OK.

    :param schemes: names of ``SCHEMES`` that are allowed, the preferred one first. The first that the server
        offers is used, and there is no fallback if it fails.
    :raises ValueError: there is no scheme, or one is unknown
    """

    def __init__(self, schemes: Sequence[str]) -> None:
        if not schemes or not set(schemes) <= set(SCHEMES):
            raise ValueError('schemes must be one or more of ' + ', '.join(SCHEMES))
        self._schemes = tuple(schemes)
        self._vencrypt = VeNCryptHandshake()
        super().__init__(_RFBStep.VERSION)

    @property
    def wants_tls(self) -> bool:
        return self._failure is None and self._step is _RFBStep.VENCRYPT and self._vencrypt.wants_tls

    def tls_started(self) -> bytes:
        if not self.wants_tls:
            return super().tls_started()
        sent = self._vencrypt.tls_started()
        self._go(_RFBStep.RESULT)
        return sent

    def _position(self) -> str:
        if self._step is _RFBStep.RESULT and self._vencrypt.done:
            # QEMU verifies the certificate after the TLS handshake, and just closes the connection
            return f'{super()._position()}, right after TLS: it may not accept our certificate'
        return self._vencrypt._position() if self._step is _RFBStep.VENCRYPT else super()._position()

    def _version(self, message: bytes) -> bytes:
        version = _parse_version(message)
        if version is None or version < (3, 8):
            raise SecurityFailed('rfb_version', printable(message))
        self._go(_RFBStep.COUNT)
        return _VERSION_3_8

    def _count(self, message: bytes) -> bytes:
        if message == b'\0':
            self._go(_RFBStep.REASON_LENGTH)
        else:
            self._go(_RFBStep.TYPES, message[0])
        return b''

    def _types(self, message: bytes) -> bytes:
        for scheme in self._schemes:
            if SCHEMES[scheme] in message:
                self._go(_RFBStep.VENCRYPT if scheme == 'vencrypt' else _RFBStep.RESULT)
                return bytes([SCHEMES[scheme]])
        raise SecurityFailed('no_common_scheme', f'security types {list(message)}')

    def _in_vencrypt(self, message: bytes) -> bytes:
        return self._vencrypt.receive(message)

    def _result(self, message: bytes) -> bytes:
        (result,) = struct.unpack('>I', message)
        if result == _OK:
            self._finish()
        elif result in (_FAILED, _TOO_MANY):
            self._go(_RFBStep.REASON_LENGTH)
        else:
            raise SecurityFailed('rfb_result', str(result))
        return b''

    def _reason_length(self, message: bytes) -> bytes:
        (length,) = struct.unpack('>I', message)
        if length > MAX_REASON:
            raise SecurityFailed('refused_by_hypervisor', f'with a reason of {length} bytes')
        self._go(_RFBStep.REASON, length)
        return b''

    def _reason(self, message: bytes) -> bytes:
        raise SecurityFailed('refused_by_hypervisor', printable(message))

    STEPS = {
        _RFBStep.VERSION: (12, _version),
        _RFBStep.COUNT: (1, _count),
        _RFBStep.TYPES: (COUNTED, _types),
        _RFBStep.VENCRYPT: (ANY, _in_vencrypt),
        _RFBStep.RESULT: (4, _result),
        _RFBStep.REASON_LENGTH: (4, _reason_length),
        _RFBStep.REASON: (COUNTED, _reason),
    }


class UserHandshake(SteppedExchange):
    """The server's side, towards a user who is already authorized: version 3.8, security type None.

    A refusal has a ``farewell`` in the form of the client's version.
    """

    def __init__(self) -> None:
        super().__init__(_RFBStep.VERSION)

    def start(self) -> bytes:
        return _VERSION_3_8

    def _version(self, message: bytes) -> bytes:
        if message != _VERSION_3_8:
            raise SecurityFailed('rfb_version', printable(message), _unsupported_version(message))
        self._go(_RFBStep.CHOICE)
        return bytes([1, _NONE])

    def _choice(self, message: bytes) -> bytes:
        if message != bytes([_NONE]):
            farewell = struct.pack('>I', _FAILED) + _reason_string(b'Only the security type None is offered.')
            raise SecurityFailed('rfb_choice', str(message[0]), farewell)
        self._finish()
        return struct.pack('>I', _OK)

    STEPS = {
        _RFBStep.VERSION: (12, _version),
        _RFBStep.CHOICE: (1, _choice),
    }


def _unsupported_version(message: bytes) -> bytes:
    """Return the refusal for a version: no security types, and the reason (RFC 6143, section 7.1.2).

    The number of types has one byte, but four in version 3.3 (appendix A).
    """
    version = _parse_version(message)
    if version is None:
        return b''
    no_types = b'\0' if version >= (3, 7) else b'\0\0\0\0'
    return no_types + _reason_string(b'Only version 3.8 of the protocol is supported.')


def _reason_string(text: bytes) -> bytes:
    return struct.pack('>I', len(text)) + text
