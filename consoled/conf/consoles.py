# SPDX-License-Identifier: Apache-2.0
"""[vnc], [spice], [serial_console], [mks]: limits of each console type, and how compute hosts offer it.

The groups have the names that operators of such clouds know. ``GROUP_OF_TYPE`` maps console types to them.
"""

from oslo_config import cfg, types

GROUP_OF_TYPE = {
    'novnc': 'vnc',
    'spice-html5': 'spice',
    'serial': 'serial_console',
    'webmks': 'mks',
    'rdp-html5': None,  # authorized and validated only: no proxy, so no sessions and no options
}

# A serial port has one reader. Two would each get half of the output.
_DEFAULT_MAX_SESSIONS = {'vnc': 0, 'spice': 0, 'serial_console': 1, 'mks': 0}

_PAGES = {'vnc': 'novnc.html', 'spice': 'spice.html', 'serial_console': 'serial.html', 'mks': ''}


def _opts(max_sessions: int) -> list[cfg.Opt]:
    return [
        cfg.IntOpt(
            'max_sessions',
            default=max_sessions,
            min=0,
            max=64,
            mutable=True,
            help='Maximum number of concurrent sessions of one console of this type; 0 means no limit. Use '
            'the same value on all managers of a cell. Lowering it does not end open sessions.',
        ),
        cfg.StrOpt(
            'takeover',
            default='refuse',
            choices=[
                ('refuse', 'the new user is refused with console_in_use'),
                ('steal', 'the oldest session is cut, and the new user gets the console'),
            ],
            mutable=True,
            help='What to do when a user opens a console that already has max_sessions sessions.',
        ),
    ]


def _offer(page: str) -> list[cfg.Opt]:
    """Return the options by which a compute agent offers consoles of a type.

    :param page: name of the proxy's page for the type
    """
    return [
        cfg.BoolOpt(
            'enabled',
            default=True,
            mutable=True,
            help='Offer the consoles of this type that the guests of this compute host have. If you disable '
            'it, open sessions are cut when the guests are next compared (see [compute] sync_interval).',
        ),
        cfg.URIOpt(
            'base_url',
            default=f'http://127.0.0.1:6080/{page}',
            schemes=['http', 'https', 'ws', 'wss'],
            max_length=1024,
            mutable=True,
            help="URL of the proxy's page for consoles of this compute host, as users reach it. The manager "
            'adds the token to it. Change the default, which only works on the proxy itself.',
        ),
        cfg.HostAddressOpt(
            'server_proxyclient_address',
            default='127.0.0.1',
            mutable=True,
            help='Address at which proxies reach this compute host. It replaces the address that a guest '
            'listens on if that is 0.0.0.0, :: or a loopback address. Any other address is used as it is.',
        ),
    ]


_VENCRYPT = [
    cfg.ListOpt(
        'auth_schemes',
        default=['none'],
        item_type=types.String(choices=['none', 'vencrypt']),
        help='Authentication schemes that a proxy may use with VNC servers, in order of preference: none, '
        'vencrypt (TLS with certificates on both sides). If you list vencrypt only, servers that offer only '
        'none are refused.',
    ),
    cfg.StrOpt(
        'vencrypt_ca_certs',
        help='PEM file with the certificates of the authorities that signed the certificates of the VNC '
        'servers. Required for vencrypt.',
    ),
    cfg.StrOpt('vencrypt_client_cert', help="PEM file with the proxy's certificate chain for vencrypt."),
    cfg.StrOpt('vencrypt_client_key', help="PEM file with the proxy's private key for vencrypt."),
    cfg.BoolOpt(
        'vencrypt_check_name',
        default=True,
        help='Require that the certificate of a VNC server names the address of the console. If you disable '
        'it, as Nova does, any server with a certificate of vencrypt_ca_certs can pass for another one.',
    ),
]

_TARGET_TLS = [
    cfg.StrOpt(
        'target_ca_certs',
        help='PEM file with the certificates of the authorities that signed the certificates of the '
        "hypervisors, for consoles with the option use_tls. If this is not set, the system's are used.",
    ),
]

_OTHER_PORTS = [
    cfg.StrOpt(
        'other_ports',
        default='offer',
        choices=[
            ('refuse', 'the user is refused with console_in_use'),
            (
                'offer',
                'the same, and the page offers the free serial ports of the instance, each by a button',
            ),
            ('next', 'the user gets the next free serial port of the instance, and the page says which one'),
        ],
        mutable=True,
        help='What to do when a user opens a serial port that already has max_sessions sessions, if the '
        'instance has several and a compute agent has defined them. With offer, takeover = steal is applied '
        'first; with next, only if no port is free. Choose refuse if a token must open the port that it is '
        'for and no other. Choose next if the serial ports of your guests are alike; clients other than the '
        'page and consolectl do not learn which port they have got.',
    ),
]

OPTS = {group: _opts(limit) for group, limit in _DEFAULT_MAX_SESSIONS.items()}
OPTS['vnc'] += _VENCRYPT
for _group in ('spice', 'serial_console', 'mks'):
    OPTS[_group] += _TARGET_TLS
OPTS['serial_console'] += _OTHER_PORTS
for _group, _page in _PAGES.items():
    OPTS[_group] += _offer(_page)


def register_opts(conf: cfg.ConfigOpts) -> None:
    for group, opts in OPTS.items():
        conf.register_opts(opts, group=group)
