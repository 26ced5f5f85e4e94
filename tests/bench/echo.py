# SPDX-License-Identifier: Apache-2.0
"""The baseline: an RPC server that returns its argument. Run as ``python -m tests.bench.echo URL``."""

from __future__ import annotations

import sys
from typing import Any

import oslo_messaging

from tests.bench import bus


class _Endpoint:
    @oslo_messaging.expose
    def echo(self, context: dict[str, Any], token: str) -> str:
        return token


def main() -> None:
    """Print ``ready`` when the server consumes, and serve until standard input is closed."""
    transport = bus.new_transport(sys.argv[1])
    server = oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(topic=bus.ECHO_TOPIC, server='bench'),
        [_Endpoint()],
        access_policy=oslo_messaging.ExplicitRPCAccessPolicy,
    )
    server.start()
    print('ready', flush=True)
    sys.stdin.read()
    server.stop()
    server.wait()
    transport.cleanup()


if __name__ == '__main__':
    main()
