# SPDX-License-Identifier: Apache-2.0
"""[nova]: tokens that Nova issues, read from Nova's cell database."""

from oslo_config import cfg, types

GROUP = 'nova'

NO_CONNECTION = (
    '[nova] connection is not set, and neither is [database] connection in the files of [nova] config_file: '
    'no token of Nova opens'
)

OPTS = [
    cfg.ListOpt(
        'config_file',
        default=[],
        help='Configuration file of the Nova in front of which consoled works, as /etc/nova/nova.conf; or '
        'several, in the order in which Nova reads them, and directories with *.conf files. '
        'Options of consoled that are not set take their values from it: [nova] connection, [DEFAULT] and '
        '[nova] transport_url, the addresses, certificates, origins and pages of [proxy], and how [vnc] '
        'reaches hypervisors. The log says at the start what is taken. [database] connection is not: '
        'consoled has a database of its own.',
    ),
    cfg.ListOpt(
        'proxies',
        item_type=types.String(choices=['novnc', 'spice', 'serial']),
        help='Proxies of Nova whose addresses in config_file consoled-proxy listens on: novnc, spice, '
        'serial. If this is not set, they are those whose section in config_file is enabled, or has an '
        'address and says nothing of that.',
    ),
    cfg.StrOpt(
        'connection',
        secret=True,
        help="URL of the database of Nova's cell, as [database] connection in nova.conf. If it is set, the "
        'consoles that Nova hands out open through consoled: a token that is not in the database of '
        'consoled is looked up there. The tables are only read. An account needs SELECT on '
        'console_auth_tokens and instances. Use the same value on all managers of a cell.',
    ),
    cfg.StrOpt(
        'transport_url',
        secret=True,
        help="URL of the message bus of Nova's cell, in the form of [DEFAULT] transport_url. If this is not "
        "set, it is consoled's own bus. If the queues of Nova are of another kind, add options of the "
        'driver, as in rabbit://consoled:SECRET@host/nova?rabbit_quorum_queue=true.',
    ),
    cfg.StrOpt(
        'exchange',
        default='nova',
        help='Exchange on which nova-compute answers: control_exchange in nova.conf.',
    ),
    cfg.StrOpt('topic', default='compute', help='Topic on which nova-compute answers.'),
    cfg.StrOpt(
        'rpc_version',
        default='5.0',
        regex=r'^\d{1,3}\.\d{1,3}$',
        help='Version of the RPC interface of nova-compute in which it is asked whether a port still belongs '
        'to its guest. Releases 18 (Rocky) to 34 of Nova answer 5.0.',
    ),
    cfg.FloatOpt(
        'watch_interval',
        default=2.0,
        min=0.5,
        max=60.0,
        help="Seconds between two looks of a manager at Nova's database for what has become of the guests "
        'with open sessions. A session is cut within this time and one second after its guest was deleted, '
        'moved, shelved, rebuilt, resized or evacuated, or Nova has deleted its token. Raise it if the '
        'queries are too many for that database: a look at 10,000 sessions is 20 to 40 queries. One manager '
        'of a cell looks at a time. Use the same value on all of them.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
