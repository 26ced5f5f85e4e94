# SPDX-License-Identifier: Apache-2.0
"""Program of ``test_races``: processes that open a session in each round, all at the same moment.

Its arguments are the config file of a cell and, for each process, the number of a socket that it inherits.
For each line of JSON on its socket, with ``token``, ``session_id``, ``proxy_id`` and ``at`` (seconds since
1970), a process sends ``won SESSION_ID`` or an error code. An empty line is answered with ``ready``.
"""

import json
import os
import socket
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

    config_file, *sockets = sys.argv[1:]

    def race(lines):
        conf = _daemon.configure(['--config-file', config_file], prog='racer', conf=cfg.ConfigOpts())
        api = ConsoleAuthAPI(get_transport(conf), timeout=60)
        for line in lines:
            if not line.strip():
                print('ready', file=lines, flush=True)
                continue
            ask = json.loads(line)
            # all racers start at the same moment, as closely as this machine allows
            time.sleep(max(0, ask['at'] - time.time()))
            try:
                session = api.open_session(RequestContext(), ask['token'], ask['session_id'], ask['proxy_id'])
            except exception.ConsoledException as exc:
                print(exc.code, file=lines, flush=True)
            else:
                print(f'won {session.id}', file=lines, flush=True)

    for number in sockets:  # forked here, so that the libraries are loaded once
        if os.fork() == 0:
            with socket.socket(fileno=int(number)) as mine:
                race(mine.makefile('rw'))
            return
    for _ in sockets:
        os.wait()


if __name__ == '__main__':
    main()
