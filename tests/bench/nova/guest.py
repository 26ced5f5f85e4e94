# SPDX-License-Identifier: Apache-2.0
"""The process of the guest: ``python -m tests.bench.nova.guest``. It first prints its port.

It accepts any number of VNC clients without authentication, and then says nothing (RFC 6143, section 7.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        for said, answered in ((b'RFB 003.008\n', 12), (b'\x01\x01', 1), (bytes(4), 0)):
            writer.write(said)
            await reader.readexactly(answered)
        await reader.read()


async def _run() -> None:
    server = await asyncio.start_server(_serve, '127.0.0.1', backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == '__main__':
    asyncio.run(_run())
