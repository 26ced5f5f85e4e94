# SPDX-License-Identifier: Apache-2.0
"""The process of the guests: ``python -m tests.bench.proxy.guests``.

It first prints the port of each guest as a line of JSON. Then it answers each line of input with what the
sink has received on one connection, once that connection is closed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import queue
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests.bench.proxy.frames import PATTERN

_BACKLOG = 4096
_CHECKED = 16  # bytes of each chunk that are compared
_SINK_TIMEOUT = 15.0  # seconds for the last connection to end

_sunk: queue.Queue[dict[str, Any]] = queue.Queue()


def source(sock: socket.socket) -> None:
    """Send as fast as possible."""
    while True:
        sock.sendall(PATTERN)


def sink(sock: socket.socket) -> None:
    """Receive everything, and compare the beginning of each chunk with the pattern."""
    buffer = memoryview(bytearray(1 << 20))
    received, intact = 0, True
    with contextlib.suppress(ConnectionError):
        while got := sock.recv_into(buffer):
            at = received % len(PATTERN)
            piece = PATTERN[at : at + min(_CHECKED, got)]
            intact = intact and buffer[: len(piece)] == piece
            received += got
    _sunk.put({'received': received, 'intact': intact})


def echo(sock: socket.socket) -> None:
    """Send back everything at once."""
    while data := sock.recv(65536):
        sock.sendall(data)


def _serve(listener: socket.socket, guest: Callable[[socket.socket], None]) -> None:
    def run(sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            guest(sock)

    while True:
        threading.Thread(target=run, args=(listener.accept()[0],), daemon=True).start()


def crowd(listener: socket.socket) -> None:
    """Echo on thousands of connections, most of which are idle."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    socks: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                sock = listener.accept()[0]
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                socks[sock.fileno()] = sock
                poll.register(sock, select.EPOLLIN)
                continue
            data = b''
            with contextlib.suppress(ConnectionError):
                if data := socks[fd].recv(65536):
                    socks[fd].sendall(data)
            if not data:
                poll.unregister(fd)
                socks.pop(fd).close()


def _start(name: str) -> int:
    listener = socket.create_server(('127.0.0.1', 0), backlog=_BACKLOG)
    call, arguments = (crowd, (listener,)) if name == 'crowd' else (_serve, (listener, globals()[name]))
    threading.Thread(target=call, args=arguments, daemon=True).start()
    return int(listener.getsockname()[1])


def main() -> None:
    """Run the guests until standard input is closed."""
    gc.disable()  # its pauses would be attributed to the proxy
    print(json.dumps({name: _start(name) for name in ('source', 'sink', 'echo', 'crowd')}), flush=True)
    for _ in sys.stdin:
        answer: dict[str, Any] = {'error': 'the upload did not end'}
        with contextlib.suppress(queue.Empty):
            answer = _sunk.get(timeout=_SINK_TIMEOUT)
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
