# SPDX-License-Identifier: Apache-2.0
"""[manager]: the daemon that owns the cell database."""

from oslo_config import cfg

GROUP = 'manager'

OPTS = [
    cfg.IntOpt(
        'workers',
        default=2,
        min=1,
        max=256,
        help='Number of worker processes that answer calls. More workers than CPU cores bring nothing. With '
        'two, one keeps answering while the other is restarted.',
    ),
    cfg.IntOpt(
        'lease',
        default=60,
        min=3,
        max=3600,
        mutable=True,
        help='Time, in seconds, for which the sessions of a proxy count as alive after its last renewal. '
        'With a shorter lease, the ports of a dead proxy are free sooner. With a longer one, serial '
        'consoles survive longer outages of the message bus.',
    ),
    cfg.IntOpt(
        'sweep_interval',
        default=300,
        min=1,
        max=86400,
        help='Interval, in seconds, between two sweeps for rows that nothing else deletes: expired tokens of '
        'compute hosts that are gone, and proxies whose lease ended long ago. It varies by 10 %.',
    ),
    cfg.BoolOpt(
        'check_port',
        default=True,
        mutable=True,
        help='Ask the compute agent, when a session opens, whether the port still belongs to the guest. If '
        "you disable it, a user may see a guest that has got another guest's port, until the agent has next "
        'compared its guests (see [compute] sync_interval).',
    ),
    cfg.FloatOpt(
        'check_port_timeout',
        default=2.0,
        min=0.1,
        max=30.0,
        help='Time to wait for the compute agent, in seconds. After that, the session is refused with '
        'compute_unreachable. Keep it above [compute] hypervisor_timeout and below [proxy] '
        'authorize_timeout.',
    ),
    cfg.IntOpt(
        'takeover_timeout',
        default=3,
        min=1,
        max=30,
        help='Time, in seconds, that a new session waits for the proxy of the session that it takes over to '
        'cut it. After that, the new session is refused with console_in_use.',
    ),
    cfg.IntOpt(
        'max_sessions_per_token',
        default=16,
        min=0,
        max=10000,
        mutable=True,
        help='Maximum number of live sessions of one token; 0 means no limit.',
    ),
    cfg.IntOpt(
        'max_sessions_per_instance',
        default=64,
        min=0,
        max=10000,
        mutable=True,
        help='Maximum number of live sessions of all consoles of one instance; 0 means no limit.',
    ),
    cfg.IntOpt(
        'max_sessions_per_project',
        default=0,
        min=0,
        max=1000000,
        mutable=True,
        help='Maximum number of live sessions of one project in the cell; 0 means no limit.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
