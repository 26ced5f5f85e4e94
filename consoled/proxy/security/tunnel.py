# SPDX-License-Identifier: Apache-2.0
"""HTTP CONNECT to a console with an ``internal_access_path``, without I/O (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import re

from consoled.proxy.security.base import Exchange, SecurityFailed, printable

MAX_PATH = 1024  # characters
MAX_HEADER = 8192  # bytes of the reply, blank line included

_PATH = re.compile(rf'[!-~]{{1,{MAX_PATH}}}')  # printable ASCII without blanks: nothing can end the line
_HOST = re.compile(r'[A-Za-z0-9._-]{1,255}|[0-9A-Fa-f:.]{2,45}')
_END = b'\r\n\r\n'
_PROTOCOL = b'HTTP/1.'
_STATUS_LINE = re.compile(rb'HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?')


class Tunnel(Exchange):
    """Requests a tunnel. It is done after the header of a 2xx response, whatever its fields.

    A line ends with CR LF only, and the header with CR LF CR LF. RFC 9112, section 2.2, allows a recipient to
    be more lenient, but the bytes after the header belong to the console, so its end must be unambiguous. An
    interim response (1xx) counts as a refusal.

    :param path: the request target, from the authorized console: printable ASCII without blanks
    :param host: name or IP address for the Host field
    :param port: TCP port for the Host field
    :raises ValueError: one of them could break the request; the message does not contain it
    """

    def __init__(self, path: str, host: str, port: int) -> None:
        super().__init__()
        host = host.partition('%')[0]  # the zone of an IPv6 address is meaningful on this machine only
        if not _PATH.fullmatch(path):
            raise ValueError(f'path must be 1 to {MAX_PATH} printable ASCII characters without blanks')
        if not _HOST.fullmatch(host):
            raise ValueError('host must be an IP address or a host name')
        if not 1 <= port <= 65535:
            raise ValueError('port must be an integer from 1 to 65535')
        authority = f'[{host}]:{port:d}' if ':' in host else f'{host}:{port:d}'
        self._request = f'CONNECT {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n'.encode('ascii')
        self._header = bytearray()

    def start(self) -> bytes:
        return self._request

    def _position(self) -> str:
        return f'header of the reply, after {len(self._header)} bytes'

    def _process(self, data: bytes) -> bytes:
        searched = max(0, len(self._header) - len(_END) + 1)
        taken = min(len(data), MAX_HEADER - len(self._header))
        before = len(self._header)
        self._header += data[:taken]
        # Fail early: a server that does not speak HTTP may send a few bytes and wait for us.
        if not _PROTOCOL.startswith(self._header[: len(_PROTOCOL)]):
            raise SecurityFailed('tunnel_reply', f'not HTTP/1: {printable(bytes(self._header[:40]))}')
        end = self._header.find(_END, searched)
        if end >= 0:
            self._check_status(bytes(self._header[:end]))
            self._keep(data[end + len(_END) - before :])
            self._header.clear()
            self._finish()
        elif len(self._header) == MAX_HEADER:
            raise SecurityFailed('tunnel_reply', f'header of more than {MAX_HEADER} bytes')
        return b''

    def _check_status(self, header: bytes) -> None:
        line = header.partition(b'\r\n')[0]
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise SecurityFailed('tunnel_reply', f'malformed status line: {printable(line, 80)}')
        if not match[1].startswith(b'2'):
            raise SecurityFailed('tunnel_refused', match[1].decode('ascii'))
