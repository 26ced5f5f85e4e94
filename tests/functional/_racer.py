# SPDX-License-Identifier: Apache-2.0
"""Program of ``test_races``: opens a session in each round, at the same moment as its competitors.

Its argument is the config file of a cell. For each line of JSON on standard input, with ``token``,
``session_id``, ``proxy_id`` and ``at`` (seconds since 1970), it prints ``won SESSION_ID`` or an error code.
An empty line is answered with ``ready``.
"""

import json
import sys
import time


def main():
    from consoled.cmd import _backend, _daemon

    _backend.select()
    from oslo_config import cfg

    from consoled import exception
    from consoled.context import RequestContext
    from consoled.rpc.client import ConsoleAuthAPI
    from consoled.rpc.transport import get_transport

    conf = _daemon.configure(['--config-file', sys.argv[1]], prog='racer', conf=cfg.ConfigOpts())
    api = ConsoleAuthAPI(get_transport(conf), timeout=60)
    for line in sys.stdin:
        if not line.strip():
            print('ready', flush=True)
            continue
        ask = json.loads(line)
        # all racers start at the same moment, as closely as this machine allows
        time.sleep(max(0, ask['at'] - time.time()))
        try:
            session = api.open_session(RequestContext(), ask['token'], ask['session_id'], ask['proxy_id'])
        except exception.ConsoledException as exc:
            print(exc.code, flush=True)
        else:
            print(f'won {session.id}', flush=True)


if __name__ == '__main__':
    main()
