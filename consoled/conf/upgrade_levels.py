# SPDX-License-Identifier: Apache-2.0
"""[upgrade_levels]: RPC versions to use while two releases work side by side."""

from oslo_config import cfg

GROUP = 'upgrade_levels'

OPTS = [
    cfg.StrOpt(
        'consoled',
        regex=r'^\d{1,3}\.\d{1,3}$',
        help='Version of the RPC contract (MAJOR.MINOR) to use with managers. While a cell is being '
        'upgraded, set it to the version of the older release, and unset it when all managers have been '
        'upgraded. If this is not set, the newest version that this release knows is used.',
    ),
    cfg.StrOpt(
        'compute',
        regex=r'^\d{1,3}\.\d{1,3}$',
        help='Version of the RPC contract (MAJOR.MINOR) that managers use with compute agents. While a cell '
        'is being upgraded, set it to the version of the older release, and unset it when all agents have '
        'been upgraded. If this is not set, the newest version that this release knows is used.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
