# SPDX-License-Identifier: Apache-2.0
"""[vnc], [spice], [serial_console], [mks]: limits of each console type, and how compute hosts offer it.

The groups have the names that operators of such clouds know; ``GROUP_OF_TYPE`` says which type each is for.
"""

from oslo_config import cfg, types

GROUP_OF_TYPE = {
    'novnc': 'vnc',
    'spice-html5': 'spice',
    'serial': 'serial_console',
    'webmks': 'mks',
    'rdp-html5': None,  # has no proxy here, hence no session and no options
}

# A serial port has one reader: two would each get half of the output.
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
            help='Sessions that one console of this type may have at a time; 0 means no limit. Use the same '
            'value on all managers of a cell. A lower value does not end sessions that are open.',
        ),
        cfg.StrOpt(
            'takeover',
            default='refuse',
            choices=[
                ('refuse', 'the new user is refused with console_in_use'),
                ('steal', 'the session connected longest is cut and the new user gets its place'),
            ],
            mutable=True,
            help='What happens when a console with all its sessions taken is opened once more.',
        ),
    ]


def _offer(page: str) -> list[cfg.Opt]:
    """What a compute agent says of consoles of a type.

    :param page: of the proxy
    """
    return [
        cfg.BoolOpt(
            'enabled',
            default=True,
            mutable=True,
            help='Whether this compute host offers the consoles of this type that its guests have. Switched '
            'off, those that are open are cut with the next sync.',
        ),
        cfg.URIOpt(
            'base_url',
            default=f'http://127.0.0.1:6080/{page}',
            schemes=['http', 'https', 'ws', 'wss'],
            max_length=1024,
            mutable=True,
            help="URL of the proxy's page, as users reach it, for consoles of this compute host. A manager "
            'adds the token to it.',
        ),
        cfg.HostAddressOpt(
            'server_proxyclient_address',
            default='127.0.0.1',
            mutable=True,
            help='Address of this compute host for proxies. It stands for the address that a guest listens '
            'on if that is 0.0.0.0, :: or a loopback address; any other is used as it is.',
        ),
    ]


_VENCRYPT = [
    cfg.ListOpt(
        'auth_schemes',
        default=['none'],
        item_type=types.String(choices=['none', 'vencrypt']),
        help='How a proxy may identify itself to a VNC server, the preferred one first: none, vencrypt '
        '(TLS with certificates on both sides). With vencrypt alone, a server that offers only none is '
        'refused.',
    ),
    cfg.StrOpt(
        'vencrypt_ca_certs',
        help='File with the certificates (PEM) of the authorities that sign those of the VNC servers. '
        'Needed for vencrypt.',
    ),
    cfg.StrOpt('vencrypt_client_cert', help="File with the proxy's own certificate chain (PEM)."),
    cfg.StrOpt('vencrypt_client_key', help='File with its private key (PEM).'),
]

_TARGET_TLS = [
    cfg.StrOpt(
        'target_ca_certs',
        help='File with the certificates (PEM) of the authorities that sign those of the hypervisors, for '
        "consoles with the option use_tls; not set: the system's.",
    ),
]

OPTS = {group: _opts(limit) for group, limit in _DEFAULT_MAX_SESSIONS.items()}
OPTS['vnc'] += _VENCRYPT
for _group in ('spice', 'serial_console', 'mks'):
    OPTS[_group] += _TARGET_TLS
for _group, _page in _PAGES.items():
    OPTS[_group] += _offer(_page)


def register_opts(conf: cfg.ConfigOpts) -> None:
    for group, opts in OPTS.items():
        conf.register_opts(opts, group=group)
