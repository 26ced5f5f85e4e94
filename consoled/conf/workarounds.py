# SPDX-License-Identifier: Apache-2.0
"""[workarounds]: options for moving a cloud over from nova-consoleauth, deprecated from the start."""

from oslo_config import cfg

GROUP = 'workarounds'

_REASON = 'It serves only the release in which a cloud is moved over from nova-consoleauth.'

OPTS = [
    cfg.BoolOpt(
        'enable_consoleauth',
        default=False,
        mutable=True,
        deprecated_for_removal=True,
        deprecated_since='1.0',
        deprecated_reason=_REASON,
        help='Serve tokens and callers of nova-consoleauth. Tokens that are not in the database are looked '
        'up in memcached (configured in [cache], as for the old service), and the manager also answers on '
        'the topic consoleauth. Enable this while tokens of the old service are in use or compute hosts and '
        'proxies still call it. Disable it when "consoled-status upgrade check" says so. Use the same value '
        'on all managers of a cell: what a manager without it revokes stays in memcached. A reload (SIGHUP) '
        'switches it on or off; [cache] is read at the start only.',
    ),
    cfg.BoolOpt(
        'consoleauth_write_through',
        default=False,
        mutable=True,
        deprecated_for_removal=True,
        deprecated_since='1.0',
        deprecated_reason=_REASON,
        help='Also write tokens that consoled authorizes to memcached. Enable this only while an old '
        'consoleauth service still answers beside consoled, and only together with enable_consoleauth: '
        'memcached stores tokens in clear text, and whoever can read it can open the consoles.',
    ),
    cfg.StrOpt(
        'consoleauth_exchange',
        default='nova',
        deprecated_for_removal=True,
        deprecated_since='1.0',
        deprecated_reason=_REASON,
        help='Exchange that callers of the old service use: control_exchange in their configuration.',
    ),
    cfg.StrOpt(
        'consoleauth_transport_url',
        secret=True,
        deprecated_for_removal=True,
        deprecated_since='1.0',
        deprecated_reason=_REASON,
        help='URL of the message bus on which callers reach the old service, in the form of [DEFAULT] '
        "transport_url. If this is not set, it is the cell's own bus. If its queues are of another kind "
        "than the cell's, add options of its driver, as in "
        'rabbit://nova:SECRET@host/?amqp_durable_queues=true.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
