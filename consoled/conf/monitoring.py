# SPDX-License-Identifier: Apache-2.0
"""[monitoring]: where metrics and health are served."""

from oslo_config import cfg

GROUP = 'monitoring'

OPTS = [
    cfg.HostAddressOpt(
        'host',
        default='127.0.0.1',
        help='Address to serve /metrics, /healthz and /readyz on. They tell nothing secret, but they are '
        'for operators: keep users away from them.',
    ),
    cfg.PortOpt(
        'port',
        default=0,
        help='TCP port of the above; 0 switches it off.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
