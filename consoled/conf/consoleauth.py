# SPDX-License-Identifier: Apache-2.0
"""[consoleauth]: lifetime and use of console auth tokens."""

from oslo_config import cfg

GROUP = 'consoleauth'

OPTS = [
    cfg.IntOpt(
        'token_ttl',
        default=600,
        min=1,
        max=31536000,
        mutable=True,
        help='Lifetime of a console auth token, in seconds, if the caller does not request one. A token '
        'only needs to live until the console is opened, so a shorter lifetime is safer.',
    ),
    cfg.IntOpt(
        'max_token_ttl',
        default=86400,
        min=1,
        max=31536000,
        mutable=True,
        help='Longest lifetime of a token that a caller may request, in seconds. Longer ones are refused '
        'with ttl_too_long.',
    ),
    cfg.BoolOpt(
        'single_use',
        default=False,
        mutable=True,
        help='Let a token open one session only. By default it opens sessions until it expires, so that '
        'users can reload the console page in their browser.',
    ),
    cfg.BoolOpt(
        'enforce_session_timeout',
        default=False,
        mutable=True,
        help='End a session when its token expires. By default a session may outlive its token. If you '
        'enable this, raise token_ttl to the time that users may work in a console.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
