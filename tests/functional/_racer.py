# SPDX-License-Identifier: Apache-2.0
"""A process that races others: opens a session for each line on stdin and prints how it went.

Run with a config file that names the bus. A line is JSON: {"token": …, "session_id": …, "proxy_id": …,
"at": moment}. An empty line is answered with "ready".
"""

import json
import sys
import time


def main():
    from consoled.cmd import _backend

    _backend.select()
    from oslo_config import cfg

    from consoled import exception
    from consoled.cmd import _setup
    from consoled.context import RequestContext
    from consoled.rpc.client import ConsoleAuthAPI
    from consoled.rpc.transport import get_transport

    conf = _setup.configure(['--config-file', sys.argv[1]], prog='racer', conf=cfg.ConfigOpts())
    api = ConsoleAuthAPI(get_transport(conf), timeout=60)
    for line in sys.stdin:
        if not line.strip():
            print('ready', flush=True)
            continue
        ask = json.loads(line)
        # meet the others at one moment, as closely as this machine allows
        time.sleep(max(0, ask['at'] - time.time()))
        try:
            session = api.open_session(RequestContext(), ask['token'], ask['session_id'], ask['proxy_id'])
        except exception.ConsoledException as exc:
            print(exc.code, flush=True)
        else:
            print(f'won {session.id}', flush=True)


if __name__ == '__main__':
    main()
