# SPDX-License-Identifier: Apache-2.0
"""[DEFAULT]: options of every service of consoled."""

import re
import socket

from oslo_config import cfg
from oslo_service import opts as service_opts

GROUP = None


def default_host() -> str:
    """Return the host name of this machine, with what a name on the bus may not have replaced."""
    return re.sub('[^A-Za-z0-9_.-]', '-', socket.gethostname()) or 'localhost'


OPTS = [
    # not HostnameOpt: it refuses a name with an underscore, also that of the machine, which is the default
    cfg.StrOpt(
        'host',
        default=default_host(),
        sample_default="<this machine's host name>",
        max_length=220,  # it is a part of the names of queues, which may have 255
        regex=r'^[A-Za-z0-9_.-]+$',
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
