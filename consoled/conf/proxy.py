# SPDX-License-Identifier: Apache-2.0
"""[proxy]: the daemon that users' browsers talk to."""

from oslo_config import cfg, types

GROUP = 'proxy'

_LISTEN = [
    cfg.HostAddressOpt(
        'host',
        default='0.0.0.0',  # noqa: S104 - users come from anywhere
        help='Address to listen on for users; :: for IPv6 and IPv4.',
    ),
    cfg.PortOpt('port', default=6080, help='TCP port of the above; 0 takes a free one, which the log tells.'),
    cfg.StrOpt(
        'unix_socket',
        help='Path of a unix socket to listen on as well, for a web server on this host that forwards to '
        'it. Its X-Forwarded headers are trusted: who may connect is decided by the rights of its directory.',
    ),
    cfg.IntOpt(
        'workers',
        default=1,
        min=1,
        max=256,
        help='Processes that share the port. One holds thousands of sessions; more pay where one core is '
        'not enough. The limits below are for each process; the websockets of one SPICE client may come to '
        'different ones, and are sessions of their own there.',
    ),
]

_TLS = [
    cfg.StrOpt(
        'ssl_cert',
        mutable=True,
        help='File with the certificate chain (PEM). Set: users are served over TLS. It is read again at '
        'SIGHUP; sessions that are open go on.',
    ),
    cfg.StrOpt('ssl_key', mutable=True, help='File with the private key (PEM); not set: it is in ssl_cert.'),
    cfg.StrOpt(
        'ssl_minimum_version',
        mutable=True,
        default='tlsv1_2',
        choices=[('tlsv1_2', 'TLS 1.2 and newer'), ('tlsv1_3', 'TLS 1.3 and newer')],
        help='Oldest version of TLS that users may speak.',
    ),
    cfg.StrOpt(
        'ssl_ciphers',
        mutable=True,
        help='Ciphers for TLS 1.2 in the notation of OpenSSL; not set: those of the library.',
    ),
]

_TRUST = [
    cfg.ListOpt(
        'allowed_origins',
        mutable=True,
        default=[],
        help='Origins of web pages, such as https://dashboard.example.org, that may open consoles besides '
        "the console's own access URL and the address this proxy was reached by. Others get 403. A "
        'program that sends no Origin is no web page, and is not refused.',
    ),
    cfg.ListOpt(
        'trusted_proxies',
        mutable=True,
        default=[],
        help='Networks (10.0.0.0/24, 2001:db8::1) of load balancers before this proxy. Only from them are '
        'X-Forwarded-For, -Proto and -Host believed.',
    ),
    cfg.ListOpt(
        'allowed_networks',
        default=['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7'],
        help='Networks where consoles may be. A console elsewhere is refused as target_forbidden, whatever '
        'the manager says. For hypervisors on this very host add 127.0.0.0/8.',
    ),
    cfg.ListOpt(
        'allowed_ports',
        default=['5900-65535'],
        help='Ports and ranges of ports where consoles may be. For webmks add 443 and 902.',
    ),
    cfg.ListOpt(
        'frame_ancestors',
        mutable=True,
        default=["'self'"],
        help='Sites that may show the console pages in a frame: what the CSP directive frame-ancestors '
        'takes, such as https://dashboard.example.org.',
    ),
]

_DEADLINES = [
    cfg.FloatOpt('tls_timeout', default=5.0, min=0.1, max=60, help='Seconds for a TLS handshake.'),
    cfg.FloatOpt(
        'request_timeout',
        default=10.0,
        min=0.1,
        max=300,
        help='Seconds for a whole HTTP request to arrive, from the connection or the answer before on.',
    ),
    cfg.FloatOpt(
        'authorize_timeout',
        default=4.0,
        min=0.1,
        max=60,
        help='Seconds to wait for the manager; then the user gets 503.',
    ),
    cfg.FloatOpt(
        'connect_timeout',
        default=5.0,
        min=0.1,
        max=60,
        help="Seconds to connect to a guest's console, handshakes with the hypervisor included; then the "
        'user gets 504.',
    ),
    cfg.FloatOpt(
        'close_timeout',
        default=3.0,
        min=0.1,
        max=60,
        help='Seconds that a peer has to end a session after it was told to.',
    ),
    cfg.IntOpt(
        'idle_timeout',
        default=0,
        min=0,
        max=604800,
        mutable=True,
        help='Seconds without input by the user (keys, pointer, paste; anything towards a serial port) '
        'after which a session is ended; 0: never.',
    ),
    cfg.FloatOpt(
        'ping_interval',
        default=20.0,
        min=1,
        max=3600,
        help='Seconds of silence of a user after which a websocket ping is sent.',
    ),
    cfg.FloatOpt(
        'ping_timeout',
        default=20.0,
        min=1,
        max=3600,
        help='Seconds that a user has to answer a ping, and that a guest which takes no more input may '
        'keep a user waiting. Then the session is ended.',
    ),
]

_LIMITS = [
    cfg.IntOpt(
        'max_connections',
        default=12000,
        min=1,
        max=1000000,
        help='Connections of users that a process holds at a time, sessions included. The limit of open '
        'files (LimitNOFILE) must be over twice as high.',
    ),
    cfg.IntOpt(
        'max_connections_per_address',
        default=200,
        min=1,
        max=1000000,
        help='Connections of one IPv4 address or IPv6 /64. Those of trusted_proxies are not limited by it.',
    ),
    cfg.IntOpt('max_sessions', default=5000, min=1, max=20000, help='Sessions that a process holds.'),
    cfg.IntOpt(
        'max_sessions_per_address',
        default=100,
        min=1,
        max=20000,
        help='Sessions of one client address, as X-Forwarded-For has it where that is trusted.',
    ),
    cfg.IntOpt(
        'max_failed_tokens',
        default=20,
        min=1,
        max=100000,
        help='Attempts a minute with refused tokens that one client address may make; then it gets 429 for '
        'a while without being looked at.',
    ),
    cfg.IntOpt(
        'max_pending_opens',
        default=200,
        min=1,
        max=10000,
        help='Sessions that may be waiting for the manager at a time; more get 503 at once.',
    ),
    cfg.IntOpt(
        'authorize_threads',
        default=16,
        min=1,
        max=256,
        help='Calls to the manager that may be under way at a time.',
    ),
    cfg.Opt(
        'max_header_size',
        type=types.Integer(1024, 1048576),
        default=16384,
        help='Bytes of the head of an HTTP request; more get 431.',
    ),
    cfg.IntOpt(
        'max_message_size',
        default=1048576,
        min=1024,
        max=67108864,
        help='Bytes of a websocket message from a user; a session that sends more is ended (1009).',
    ),
    cfg.IntOpt(
        'max_channels',
        default=12,
        min=1,
        max=64,
        help='Websockets that a SPICE session may have: its client opens one a channel.',
    ),
]

_PAGES = [
    cfg.StrOpt(
        'novnc_path',
        mutable=True,
        default='/usr/share/novnc',
        help="Directory of noVNC (Debian's package novnc, or @novnc/novnc from npm). Not there: no page.",
    ),
    cfg.StrOpt(
        'spice_path',
        mutable=True,
        default='/usr/share/spice-html5',
        help="Directory of spice-html5 (Debian's package). Not there: no page.",
    ),
    cfg.StrOpt(
        'terminal_path',
        mutable=True,
        default='/usr/local/share/consoled/xterm',
        help='Directory of xterm.js (@xterm/xterm from npm; tools/setup-pages.sh puts it here). Not there: '
        'no page.',
    ),
]

OPTS = [*_LISTEN, *_TLS, *_TRUST, *_DEADLINES, *_LIMITS, *_PAGES]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
