# SPDX-License-Identifier: Apache-2.0
"""[DEFAULT]: what every service of consoled has."""

import socket

from oslo_config import cfg
from oslo_service import opts as service_opts

GROUP = None

OPTS = [
    cfg.HostnameOpt(
        'host',
        default=socket.gethostname(),
        sample_default="<this machine's host name>",
        help='Name of this service on the bus, unique among the services of its kind in the cell. For a '
        'manager it is the server name of its queue; for a compute agent it is the compute host.',
    ),
]

# Draining has a limit: a call that hangs must not keep a service from stopping.
GRACEFUL_SHUTDOWN = 30  # seconds


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS)
    service_opts.register_service_opts(conf)
    conf.set_default('graceful_shutdown_timeout', GRACEFUL_SHUTDOWN)
