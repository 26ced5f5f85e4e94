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
        help='Worker processes that answer calls. More than the cores of the machine bring nothing; one of '
        'two keeps answering while the other is restarted.',
    ),
    cfg.IntOpt(
        'lease',
        default=60,
        min=3,
        max=3600,
        mutable=True,
        help='How long, in seconds, the sessions of a proxy count as alive without a sign of life from it. '
        'A shorter lease frees the ports of a dead proxy sooner; a longer one survives longer outages of '
        'the bus without cutting serial consoles.',
    ),
    cfg.IntOpt(
        'sweep_interval',
        default=300,
        min=1,
        max=86400,
        help='Seconds between two sweeps of what nobody else cleans: expired tokens of compute hosts that '
        'are gone, proxies whose lease ended long ago. The period is jittered by a tenth.',
    ),
    cfg.BoolOpt(
        'check_port',
        default=True,
        mutable=True,
        help="Ask the compute agent, when a session opens, whether the port is still that guest's. Off: a "
        "guest that got another guest's port may be shown to the wrong user until the agent's next sync.",
    ),
    cfg.FloatOpt(
        'check_port_timeout',
        default=2.0,
        min=0.1,
        max=30.0,
        help="Seconds to wait for the compute agent's answer; then the session is refused as "
        'compute_unreachable.',
    ),
    cfg.IntOpt(
        'takeover_timeout',
        default=3,
        min=1,
        max=30,
        help='Seconds that opening a session waits for the one it takes over to be cut by its proxy. Then '
        'it is refused as console_in_use.',
    ),
    cfg.IntOpt(
        'max_sessions_per_token',
        default=16,
        min=0,
        max=10000,
        mutable=True,
        help='Live sessions that one token may have; 0 means no limit.',
    ),
    cfg.IntOpt(
        'max_sessions_per_instance',
        default=64,
        min=0,
        max=10000,
        mutable=True,
        help='Live sessions that all consoles of one instance may have together; 0 means no limit.',
    ),
    cfg.IntOpt(
        'max_sessions_per_project',
        default=0,
        min=0,
        max=1000000,
        mutable=True,
        help='Live sessions that one project may have in the cell; 0 means no limit.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
