# SPDX-License-Identifier: Apache-2.0
"""The RFB security handshake, both sides, without I/O (RFC 6143, section 7.1).

``HypervisorSide`` is the client of a guest's VNC server, ``UserSide`` the server of a user's client. Neither
goes into the initialisation phase: the user's own ClientInit is the first message that passes through.

Version 3.8 only, on both sides: 3.3 lets the server choose the security type, and before 3.8 None has no
SecurityResult. A server that names a higher version (003.889 of Apple's, 004.001 and 005.000 of RealVNC's) is
answered with 003.008: the number is the highest it supports, and the client's answer is what is spoken
(section 7.1.1). One that does not mean it fails the handshake; it can not weaken it.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Sequence

from consoled.proxy.security.base import ANY, COUNTED, SecurityFailed, SteppedExchange, printable
from consoled.proxy.security.vencrypt import VeNCryptClient

MAX_REASON = 4096  # bytes

# scheme -> security type (section 7.2, and IANA's registry for VeNCrypt)
SCHEMES = {'none': 1, 'vencrypt': 19}

_VERSION_3_8 = b'RFB 003.008\n'
_VERSION = re.compile(rb'RFB ([0-9]{3})\.([0-9]{3})\n')
_NONE = SCHEMES['none']
_OK, _FAILED, _TOO_MANY = range(3)  # SecurityResult (section 7.1.3; 2: the community's specification)


def _version_of(message: bytes) -> tuple[int, int] | None:
    match = _VERSION.fullmatch(message)
    return (int(match[1]), int(match[2])) if match else None


class _Step(enum.Enum):
    VERSION = 'RFB version'
    COUNT = 'number of security types'
    TYPES = 'security types'
    VENCRYPT = 'VeNCrypt'
    RESULT = 'security result'
    REASON_LENGTH = 'length of reason'
    REASON = 'reason'
    CHOICE = 'choice of security type'


class HypervisorSide(SteppedExchange):
    """The client's side, towards a hypervisor. Done with SecurityResult OK.

    :param schemes: names of ``SCHEMES`` that may be used, the preferred one first. The first one that is
        offered is used; there is no second try, and nothing else is ever chosen.
    :raises ValueError: no scheme, or an unknown one
    """

    def __init__(self, schemes: Sequence[str]) -> None:
        if not schemes or not set(schemes) <= set(SCHEMES):
            raise ValueError('schemes must be some of ' + ', '.join(SCHEMES))
        self._schemes = tuple(schemes)
        self._vencrypt = VeNCryptClient()
        super().__init__(_Step.VERSION)

    @property
    def wants_tls(self) -> bool:
        return self._failure is None and self._step is _Step.VENCRYPT and self._vencrypt.wants_tls

    def tls_started(self) -> bytes:
        if not self.wants_tls:
            return super().tls_started()
        sent = self._vencrypt.tls_started()
        self._go(_Step.RESULT)
        return sent

    def _where(self) -> str:
        if self._step is _Step.RESULT and self._vencrypt.done:
            # QEMU looks at it after the TLS handshake, and hangs up without a word
            return f'{super()._where()}, right after TLS: it may not accept our certificate'
        return self._vencrypt._where() if self._step is _Step.VENCRYPT else super()._where()

    def _version(self, message: bytes) -> bytes:
        version = _version_of(message)
        if version is None or version < (3, 8):
            raise SecurityFailed('rfb_version', printable(message))
        self._go(_Step.COUNT)
        return _VERSION_3_8

    def _count(self, message: bytes) -> bytes:
        if message == b'\0':
            self._go(_Step.REASON_LENGTH)
        else:
            self._go(_Step.TYPES, message[0])
        return b''

    def _types(self, message: bytes) -> bytes:
        for scheme in self._schemes:
            if SCHEMES[scheme] in message:
                self._go(_Step.VENCRYPT if scheme == 'vencrypt' else _Step.RESULT)
                return bytes([SCHEMES[scheme]])
        raise SecurityFailed('no_common_scheme', f'security types {list(message)}')

    def _in_vencrypt(self, message: bytes) -> bytes:
        return self._vencrypt.receive(message)

    def _result(self, message: bytes) -> bytes:
        (result,) = struct.unpack('>I', message)
        if result == _OK:
            self._finish()
        elif result in (_FAILED, _TOO_MANY):
            self._go(_Step.REASON_LENGTH)
        else:
            raise SecurityFailed('rfb_result', str(result))
        return b''

    def _reason_length(self, message: bytes) -> bytes:
        (length,) = struct.unpack('>I', message)
        if length > MAX_REASON:
            raise SecurityFailed('refused_by_hypervisor', f'with a reason of {length} bytes')
        self._go(_Step.REASON, length)
        return b''

    def _reason(self, message: bytes) -> bytes:
        raise SecurityFailed('refused_by_hypervisor', printable(message))

    STEPS = {
        _Step.VERSION: (12, _version),
        _Step.COUNT: (1, _count),
        _Step.TYPES: (COUNTED, _types),
        _Step.VENCRYPT: (ANY, _in_vencrypt),
        _Step.RESULT: (4, _result),
        _Step.REASON_LENGTH: (4, _reason_length),
        _Step.REASON: (COUNTED, _reason),
    }


class UserSide(SteppedExchange):
    """The server's side, towards a user who is authorized already: version 3.8, security type None.

    A refusal has a ``farewell`` in the form that the client's version knows.
    """

    def __init__(self) -> None:
        super().__init__(_Step.VERSION)

    def start(self) -> bytes:
        return _VERSION_3_8

    def _version(self, message: bytes) -> bytes:
        if message != _VERSION_3_8:
            raise SecurityFailed('rfb_version', printable(message), _unsupported(message))
        self._go(_Step.CHOICE)
        return bytes([1, _NONE])

    def _choice(self, message: bytes) -> bytes:
        if message != bytes([_NONE]):
            farewell = struct.pack('>I', _FAILED) + _reason_string(b'Only the security type None is offered.')
            raise SecurityFailed('rfb_choice', str(message[0]), farewell)
        self._finish()
        return struct.pack('>I', _OK)

    STEPS = {
        _Step.VERSION: (12, _version),
        _Step.CHOICE: (1, _choice),
    }


def _unsupported(message: bytes) -> bytes:
    """No security types, and why (section 7.1.2); 3.3 has a word for their number (appendix A)."""
    version = _version_of(message)
    if version is None:
        return b''
    none = b'\0' if version >= (3, 7) else b'\0\0\0\0'
    return none + _reason_string(b'Only the protocol version 3.8 is supported.')


def _reason_string(text: bytes) -> bytes:
    return struct.pack('>I', len(text)) + text
