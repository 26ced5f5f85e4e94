# SPDX-License-Identifier: Apache-2.0
"""[workarounds]: for the time of a move; everything here is deprecated from the start."""

from oslo_config import cfg

GROUP = 'workarounds'

_REASON = 'It is for one release: the one in which a cloud is moved over from nova-consoleauth.'

OPTS = [
    cfg.BoolOpt(
        'enable_consoleauth',
        default=False,
        mutable=True,
        deprecated_for_removal=True,
        deprecated_since='1.0',
        deprecated_reason=_REASON,
        help='Use this while tokens of nova-consoleauth are still in use, or compute hosts and proxies still '
        'call it: a token that the database does not know is looked for in memcached (configured in '
        '[cache], as for the old service), and the manager answers on topic consoleauth too. Stop when '
        '"consoled-status upgrade check" says that it may go. Use the same value on all managers of a cell: '
        'what one revokes that does not use it stays in memcached. A reload (SIGHUP) switches it; [cache] is '
        'read at the start.',
    ),
    cfg.BoolOpt(
        'consoleauth_write_through',
        default=False,
        mutable=True,
        deprecated_for_removal=True,
        deprecated_since='1.0',
        deprecated_reason=_REASON,
        help='Write the tokens that are authorized here to memcached too. Only while an old consoleauth '
        'service still answers beside consoled, and only together with enable_consoleauth: memcached keeps '
        'tokens in clear, and whoever reads it can open the consoles.',
    ),
    cfg.StrOpt(
        'consoleauth_exchange',
        default='nova',
        deprecated_for_removal=True,
        deprecated_since='1.0',
        deprecated_reason=_REASON,
        help='The exchange that callers of the old service use: the control_exchange of their configuration.',
    ),
    cfg.StrOpt(
        'consoleauth_transport_url',
        secret=True,
        deprecated_for_removal=True,
        deprecated_since='1.0',
        deprecated_reason=_REASON,
        help='The message bus on which callers of the old service reach it, as in [DEFAULT] transport_url. '
        "Not set: the cell's own. Where its queues are of another kind than the cell's, options of its "
        'driver can be added, as in rabbit://nova:SECRET@host/?amqp_durable_queues=true.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
