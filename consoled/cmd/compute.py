# SPDX-License-Identifier: Apache-2.0
"""``consoled-compute``: the agent on a compute host."""

from __future__ import annotations

import sys

from consoled import notify
from consoled.cmd import _backend

PROG = 'consoled-compute'

_DESCRIPTION = (
    'The agent on a compute host: hands out tokens for the consoles of its guests, tells the managers which '
    "there are, and says whether a port is still that guest's. Reads consoled.conf and "
    'consoled-compute.conf where oslo.config looks for them (~/.consoled, ~, /etc/consoled, /etc); '
    'etc/consoled/consoled.conf.sample explains every option. SIGTERM ends it once the calls in flight are '
    'answered, SIGHUP reads the files again and tells the managers what has changed.'
)


def main() -> int:
    """Run the agent until SIGTERM."""
    _backend.select('threading')  # libvirt's calls block
    # only now: the libraries look at the backend when they are imported
    from consoled.cmd import _setup
    from consoled.compute import service

    conf = _setup.configure(prog=PROG, description=_DESCRIPTION)
    try:
        service.prepare(conf)
    except ValueError as exc:
        print(f'{PROG}: {exc}', file=sys.stderr)
        return 1
    service.run(conf, notify.of_this_process())
    return 0


if __name__ == '__main__':
    sys.exit(main())
