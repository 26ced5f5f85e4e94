# SPDX-License-Identifier: Apache-2.0
"""[DEFAULT]: options of every service of consoled."""

import socket

from oslo_config import cfg
from oslo_service import opts as service_opts

GROUP = None

OPTS = [
    cfg.HostnameOpt(
        'host',
        default=socket.gethostname(),
        sample_default="<this machine's host name>",
        help='Name of this service on the message bus. It must be unique among the services of its kind in '
        'the cell. For a compute agent it is the name of the compute host. The default is the host name of '
        'the machine; set it if that name is not unique or may change.',
    ),
]

# A call that hangs must not keep a service from stopping.
GRACEFUL_SHUTDOWN = 30  # seconds


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS)
    service_opts.register_service_opts(conf)
    conf.set_default('graceful_shutdown_timeout', GRACEFUL_SHUTDOWN)
