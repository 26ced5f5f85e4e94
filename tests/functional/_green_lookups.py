# SPDX-License-Identifier: Apache-2.0
"""Program that looks tokens up in green threads while memcached hangs; prints ``ok`` when all time out.

Its arguments are the address of memcached and the name of the cache backend.
"""

import eventlet

eventlet.monkey_patch()

import sys  # noqa: E402 - patch before importing anything else
import time  # noqa: E402

from oslo_cache import core  # noqa: E402

from consoled.legacy import memcached  # noqa: E402
from consoled.testing import fixtures  # noqa: E402


def main():
    server, backend = sys.argv[1:]
    outcomes = []
    with fixtures.Conf() as config:
        core.configure(config.conf)
        config.set(cache__enabled=True, cache__backend=backend, cache__memcache_servers=[server])
        source = memcached.from_conf(config.conf, outcomes.append)
        steps = []

        def tick():
            while True:
                steps.append(1)
                time.sleep(0.01)

        ticking = eventlet.spawn(tick)
        started = time.monotonic()
        pool = eventlet.GreenPool(30)
        for number in range(30):
            pool.spawn(source.lookup, f'0b5b1b0e-1111-4222-8333-4444555566{number:02}')
        pool.waitall()
        took = time.monotonic() - started
        ticking.kill()
    if outcomes != ['unavailable'] * 30 or took > 10 or len(steps) < 5:
        raise SystemExit(f'{outcomes} {took} {len(steps)}')
    print('ok')


if __name__ == '__main__':
    main()
