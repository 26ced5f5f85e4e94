# SPDX-License-Identifier: Apache-2.0
"""The options of Nova that consoled reads, with the types and defaults that they have in Nova.

All releases since 18 (Rocky) have them, under these names or the old ones.
"""

from __future__ import annotations

from oslo_config import cfg, types

Name = tuple[str, str]  # group, option

_SCHEMES = types.String(choices=['none', 'vencrypt'])

# What the bus of Nova requires of its clients, and no more: how patient a client is, is its own affair.
BUS_TLS = ('ssl_version', 'ssl_ca_file', 'ssl_cert_file', 'ssl_key_file')
BUS_FLAGS = ('ssl', 'amqp_durable_queues', 'amqp_auto_delete', 'rabbit_quorum_queue', 'rabbit_ha_queues')

OPTIONS: dict[str, list[cfg.Opt]] = {
    'DEFAULT': [
        cfg.StrOpt('transport_url', secret=True),
        cfg.StrOpt('control_exchange', default='nova'),
        cfg.StrOpt('host'),
        cfg.StrOpt('cert', default='self.pem'),
        cfg.StrOpt('key'),
        cfg.BoolOpt('ssl_only', default=False),
        cfg.BoolOpt('source_is_ipv6', default=False),
        cfg.BoolOpt('daemon', default=False),
        cfg.StrOpt('record'),
        cfg.StrOpt('web'),
    ],
    'database': [
        cfg.StrOpt('connection', secret=True),
        cfg.StrOpt('connection_parameters', default='', secret=True),
    ],
    'oslo_messaging_rabbit': [
        *(cfg.BoolOpt(name, default=False) for name in BUS_FLAGS),
        *(cfg.StrOpt(name) for name in (*BUS_TLS, 'rabbit_login_method')),
    ],
    'vnc': [
        cfg.BoolOpt('enabled', default=True),
        cfg.StrOpt('novncproxy_host', default='0.0.0.0'),  # noqa: S104 - Nova's default
        cfg.PortOpt('novncproxy_port', default=6080),
        cfg.StrOpt('novncproxy_base_url'),
        cfg.StrOpt('server_proxyclient_address'),
        cfg.ListOpt('auth_schemes', item_type=_SCHEMES, default=['none']),
        cfg.StrOpt('vencrypt_ca_certs'),
        cfg.StrOpt('vencrypt_client_cert'),
        cfg.StrOpt('vencrypt_client_key'),
        cfg.StrOpt('xvpvncproxy_host'),
    ],
    'spice': [
        cfg.BoolOpt('enabled', default=False),
        cfg.StrOpt('html5proxy_host', default='0.0.0.0'),  # noqa: S104 - Nova's default
        cfg.PortOpt('html5proxy_port', default=6082),
        cfg.StrOpt('html5proxy_base_url'),
        cfg.StrOpt('server_proxyclient_address'),
    ],
    'serial_console': [
        cfg.BoolOpt('enabled', default=False),
        cfg.StrOpt('serialproxy_host', default='0.0.0.0'),  # noqa: S104 - Nova's default
        cfg.PortOpt('serialproxy_port', default=6083),
        cfg.StrOpt('base_url'),
        cfg.StrOpt('proxyclient_address'),
    ],
    'rdp': [cfg.BoolOpt('enabled', default=False)],
    'console': [
        cfg.ListOpt('allowed_origins', default=[]),
        cfg.StrOpt('ssl_ciphers'),
        cfg.StrOpt(
            'ssl_minimum_version', default='default', choices=['default', 'tlsv1_1', 'tlsv1_2', 'tlsv1_3']
        ),
    ],
    'consoleauth': [
        cfg.IntOpt('token_ttl', default=600, min=0),
        cfg.BoolOpt('enforce_session_timeout', default=False),
    ],
    'libvirt': [cfg.StrOpt('connection_uri', default='')],
    'workarounds': [cfg.BoolOpt('enable_consoleauth', default=False)],
    'cells': [cfg.BoolOpt('enable', default=False)],
}

OLD_NAMES: dict[Name, tuple[Name, ...]] = {
    ('console', 'allowed_origins'): (('DEFAULT', 'console_allowed_origins'),),
    ('consoleauth', 'token_ttl'): (('DEFAULT', 'console_token_ttl'),),
    ('vnc', 'enabled'): (('DEFAULT', 'vnc_enabled'),),
    ('vnc', 'novncproxy_host'): (('DEFAULT', 'novncproxy_host'),),
    ('vnc', 'novncproxy_port'): (('DEFAULT', 'novncproxy_port'),),
    ('vnc', 'novncproxy_base_url'): (('DEFAULT', 'novncproxy_base_url'),),
    ('vnc', 'server_proxyclient_address'): (
        ('vnc', 'vncserver_proxyclient_address'),
        ('DEFAULT', 'vncserver_proxyclient_address'),
    ),
    ('vnc', 'xvpvncproxy_host'): (('xvp', 'xvpvncproxy_host'), ('DEFAULT', 'xvpvncproxy_host')),
    ('database', 'connection'): (('DEFAULT', 'sql_connection'), ('database', 'sql_connection')),
    ('oslo_messaging_rabbit', 'ssl'): (('oslo_messaging_rabbit', 'rabbit_use_ssl'),),
    ('oslo_messaging_rabbit', 'ssl_version'): (('oslo_messaging_rabbit', 'kombu_ssl_version'),),
    ('oslo_messaging_rabbit', 'ssl_ca_file'): (('oslo_messaging_rabbit', 'kombu_ssl_ca_certs'),),
    ('oslo_messaging_rabbit', 'ssl_cert_file'): (('oslo_messaging_rabbit', 'kombu_ssl_certfile'),),
    ('oslo_messaging_rabbit', 'ssl_key_file'): (('oslo_messaging_rabbit', 'kombu_ssl_keyfile'),),
    ('oslo_messaging_rabbit', 'amqp_durable_queues'): (
        ('oslo_messaging_rabbit', 'rabbit_durable_queues'),
        ('DEFAULT', 'amqp_durable_queues'),
    ),
}
