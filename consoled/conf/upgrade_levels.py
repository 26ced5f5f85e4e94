# SPDX-License-Identifier: Apache-2.0
"""[upgrade_levels]: what is spoken while two releases work side by side."""

from oslo_config import cfg

GROUP = 'upgrade_levels'

OPTS = [
    cfg.StrOpt(
        'consoled',
        regex=r'^\d{1,3}\.\d{1,3}$',
        help='Version of the RPC contract (MAJOR.MINOR) to speak to managers. Set it to that of the older '
        'release while a cell is being upgraded, and unset it when all managers are new. Unset: the newest '
        'this release knows.',
    ),
    cfg.StrOpt(
        'compute',
        regex=r'^\d{1,3}\.\d{1,3}$',
        help='The same for what managers speak to compute agents.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
