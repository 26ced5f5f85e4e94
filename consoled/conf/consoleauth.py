# SPDX-License-Identifier: Apache-2.0
"""[consoleauth]: the life of console auth tokens."""

from oslo_config import cfg

GROUP = 'consoleauth'

OPTS = [
    cfg.IntOpt(
        'token_ttl',
        default=600,
        min=1,
        max=31536000,
        mutable=True,
        help='Lifetime of a console auth token in seconds, when the caller asks for none. A token only has '
        'to live until the console is opened: shorter is safer.',
    ),
    cfg.IntOpt(
        'max_token_ttl',
        default=86400,
        min=1,
        max=31536000,
        mutable=True,
        help='Longest lifetime in seconds that a caller may ask for; more is refused as ttl_too_long.',
    ),
    cfg.BoolOpt(
        'single_use',
        default=False,
        mutable=True,
        help='A token opens one session and is spent by it. Off: it opens sessions until it expires, so '
        'that a browser page may be reloaded.',
    ),
    cfg.BoolOpt(
        'enforce_session_timeout',
        default=False,
        mutable=True,
        help='A session ends when its token expires. Off: a session may outlive its token.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
