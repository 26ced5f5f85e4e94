# SPDX-License-Identifier: Apache-2.0
"""[monitoring]: address of the metrics and health endpoints."""

from oslo_config import cfg

GROUP = 'monitoring'

OPTS = [
    cfg.HostAddressOpt(
        'host',
        default='127.0.0.1',
        help='Address to serve /metrics, /healthz and /readyz on. They reveal no secrets, but they are '
        'meant for operators: do not expose them to users.',
    ),
    cfg.PortOpt(
        'port',
        default=0,
        help='TCP port to serve /metrics, /healthz and /readyz on; 0 disables them.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
