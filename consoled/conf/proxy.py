# SPDX-License-Identifier: Apache-2.0
"""[proxy]: the daemon that serves users' browsers."""

from oslo_config import cfg, types

GROUP = 'proxy'

_LISTEN = [
    cfg.HostAddressOpt(
        'host',
        default='0.0.0.0',  # noqa: S104 - users come from anywhere
        help='Address to listen on for users; :: listens on IPv6 and IPv4.',
    ),
    cfg.PortOpt('port', default=6080, help='TCP port to listen on; 0 takes any free port, which is logged.'),
    cfg.ListOpt(
        'additional_addresses',
        default=[],
        help='Addresses to listen on besides host and port, such as 192.0.2.1:6083 or [2001:db8::1]:6083. '
        'All of them serve the same consoles and pages. Set it where users know several ports, as those of '
        "Nova's proxies: 0.0.0.0:6082 and 0.0.0.0:6083.",
    ),
    cfg.StrOpt(
        'unix_socket',
        help='Path of a unix socket to listen on as well, for a web server on this host that forwards '
        'requests. X-Forwarded headers that arrive by it are trusted, so restrict who may connect: see '
        'unix_socket_mode.',
    ),
    cfg.StrOpt(
        'unix_socket_mode',
        default='0660',
        regex=r'^0?[0-7]{3}$',
        help='Permissions of unix_socket, in octal; whoever may write to it may connect. Its directory must '
        'let the web server in, too.',
    ),
    cfg.StrOpt(
        'unix_socket_group',
        help='Group of unix_socket, by name or number: that of the web server. The user of the proxy must '
        'be a member (in a systemd unit: SupplementaryGroups). By default, it is the group of the proxy.',
    ),
    cfg.IntOpt(
        'workers',
        default=1,
        min=1,
        max=256,
        help='Number of processes that share the port. One holds thousands of sessions; use more if one CPU '
        'core is not enough. The limits below apply to each process. The websockets of one SPICE client may '
        'arrive at different processes, and are separate sessions there.',
    ),
]

_TLS = [
    cfg.StrOpt(
        'ssl_cert',
        mutable=True,
        help='PEM file with the certificate chain. If this is set, users are served over TLS. The file is '
        'read again on SIGHUP; open sessions continue.',
    ),
    cfg.StrOpt(
        'ssl_key',
        mutable=True,
        help='PEM file with the private key. If this is not set, the key must be in ssl_cert.',
    ),
    cfg.BoolOpt(
        'ssl_only',
        default=True,
        help='Whether users are served over TLS only where ssl_cert is set. If this is false, plain HTTP is '
        "answered on the same ports, too, as Nova's proxies do; then tokens and consoles can be read on the "
        'way. Set it to false only while users still have http URLs.',
    ),
    cfg.StrOpt(
        'ssl_minimum_version',
        mutable=True,
        default='tlsv1_2',
        choices=[('tlsv1_2', 'TLS 1.2 and newer'), ('tlsv1_3', 'TLS 1.3 and newer')],
        help='Oldest version of TLS that users may use.',
    ),
    cfg.StrOpt(
        'ssl_ciphers',
        mutable=True,
        help='Ciphers for TLS 1.2, in the notation of OpenSSL. If this is not set, the defaults of the '
        'library are used.',
    ),
]

_TRUST = [
    cfg.ListOpt(
        'allowed_origins',
        mutable=True,
        default=[],
        help='Origins of web pages that may open consoles, such as https://dashboard.example.org, in '
        "addition to the console's access URL and the address at which this proxy was reached. Other "
        'origins get 403. Programs that send no Origin header are not web pages, and are not refused.',
    ),
    cfg.BoolOpt(
        'match_origin_by_host',
        mutable=True,
        default=False,
        help="Compare only the host names of origins, at any port, as Nova's proxies do. allowed_origins may "
        'then contain host names without a scheme. Pages of these hosts, and of the host of this proxy, may '
        'also show the console pages in a frame. Set it where a dashboard at another port of the same host '
        'opens consoles.',
    ),
    cfg.ListOpt(
        'trusted_proxies',
        mutable=True,
        default=[],
        help='Networks or addresses (10.0.0.0/24, 2001:db8::1) of load balancers in front of this proxy. '
        'Only their X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host headers are trusted.',
    ),
    cfg.ListOpt(
        'allowed_networks',
        default=['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7'],
        help='Networks that consoles may be in. Other consoles are refused with target_forbidden, whatever '
        'the manager says. Add 127.0.0.0/8 for a hypervisor on this host.',
    ),
    cfg.ListOpt(
        'allowed_ports',
        default=['5900-65535'],
        help='TCP ports, and ranges of ports, that consoles may have. Add 443 and 902 for webmks.',
    ),
    cfg.ListOpt(
        'frame_ancestors',
        mutable=True,
        default=["'self'"],
        help='Sites that may show the console pages in a frame: values of the CSP directive '
        'frame-ancestors, such as https://dashboard.example.org.',
    ),
]

_DEADLINES = [
    cfg.FloatOpt('tls_timeout', default=5.0, min=0.1, max=60, help='Time for a TLS handshake, in seconds.'),
    cfg.FloatOpt(
        'request_timeout',
        default=10.0,
        min=0.1,
        max=300,
        help='Time for a whole HTTP request to arrive, in seconds, from the connection or the previous '
        'answer.',
    ),
    cfg.FloatOpt(
        'authorize_timeout',
        default=4.0,
        min=0.1,
        max=60,
        help='Time to wait for the manager, in seconds. After that, the user gets 503. Keep it above '
        '[manager] check_port_timeout.',
    ),
    cfg.FloatOpt(
        'connect_timeout',
        default=5.0,
        min=0.1,
        max=60,
        help="Time to connect to a guest's console, in seconds, including handshakes with the hypervisor. "
        'After that, the user gets 504.',
    ),
    cfg.FloatOpt(
        'close_timeout',
        default=3.0,
        min=0.1,
        max=60,
        help='Time, in seconds, that a user has to close the connection after the proxy has ended the '
        'session.',
    ),
    cfg.IntOpt(
        'idle_timeout',
        default=0,
        min=0,
        max=604800,
        mutable=True,
        help='Time, in seconds, without input by the user (keys, pointer, paste) after which a session is '
        'ended; 0 means never. Of a webmks console, anything that is sent counts as input.',
    ),
    cfg.FloatOpt(
        'ping_interval',
        default=20.0,
        min=1,
        max=3600,
        help='Time, in seconds, without data from the user after which a websocket ping is sent.',
    ),
    cfg.FloatOpt(
        'ping_timeout',
        default=20.0,
        min=1,
        max=3600,
        help='Time, in seconds, that a user has to answer a ping, and for which a guest may accept no input '
        'while a user sends some. After that, the session is ended.',
    ),
]

_LIMITS = [
    cfg.IntOpt(
        'max_connections',
        default=12000,
        min=1,
        max=1000000,
        help='Maximum number of concurrent connections of users to a process, including those of sessions. '
        'The limit of open files (LimitNOFILE) must be more than twice as high.',
    ),
    cfg.IntOpt(
        'max_connections_per_address',
        default=200,
        min=1,
        max=1000000,
        help='Maximum number of concurrent connections of one IPv4 address or IPv6 /64 network. An IPv6 /56 '
        'may have 4 times as many, a /48 16 times, and a /32 64 times; so with all limits per address. The '
        'limit does not apply to trusted_proxies.',
    ),
    cfg.IntOpt(
        'max_sessions',
        default=5000,
        min=1,
        max=20000,
        help='Maximum number of concurrent sessions of a process.',
    ),
    cfg.IntOpt(
        'max_sessions_per_address',
        default=100,
        min=1,
        max=20000,
        help='Maximum number of concurrent sessions of one client address, which is taken from '
        'X-Forwarded-For where that is trusted.',
    ),
    cfg.IntOpt(
        'max_failed_tokens',
        default=20,
        min=1,
        max=100000,
        help='Maximum number of attempts per minute with invalid tokens from one client address. After '
        'that, its invalid tokens get 429, a second late, and the manager is asked about one of its tokens '
        'at a time; good tokens still open consoles. Attempts that a page of another site makes are counted '
        'apart. As many requests per minute and address for the reason of a refusal may need the manager.',
    ),
    cfg.IntOpt(
        'max_recorded_refusals',
        default=60,
        min=1,
        max=1000000,
        help='Maximum number of refused attempts per minute and client address that are logged and sent as '
        'notifications. The rest are counted, in metrics and once a minute in the log. Raise it if many '
        'users share an address and each of their refusals has to be in the audit trail.',
    ),
    cfg.IntOpt(
        'max_pending_opens',
        default=200,
        min=1,
        max=10000,
        help='Maximum number of sessions that wait for the manager at a time. Further ones get 503 at once.',
    ),
    cfg.IntOpt(
        'authorize_threads',
        default=16,
        min=1,
        max=256,
        help='Maximum number of concurrent calls to the manager that authorize users.',
    ),
    cfg.Opt(
        'max_header_size',
        type=types.Integer(1024, 1048576),
        default=16384,
        help='Maximum size of the head of an HTTP request, in bytes. Larger ones get 431.',
    ),
    cfg.IntOpt(
        'max_message_size',
        default=1048576,
        min=1024,
        max=67108864,
        help='Maximum size of a websocket message from a user, in bytes. A larger one ends the session '
        '(1009). Messages are forwarded as they come, so this is no memory that a session takes.',
    ),
    cfg.IntOpt(
        'max_channels',
        default=12,
        min=1,
        max=64,
        help='Maximum number of websockets of a SPICE session, whose client opens one for each of its '
        'channels.',
    ),
]

_PAGES = [
    cfg.StrOpt(
        'novnc_path',
        mutable=True,
        default='/usr/share/novnc',
        help="Directory of noVNC (Debian's package novnc, or @novnc/novnc from npm). If it does not exist, "
        'the page is not served.',
    ),
    cfg.StrOpt(
        'spice_path',
        mutable=True,
        default='/usr/share/spice-html5',
        help="Directory of spice-html5 (Debian's package spice-html5). If it does not exist, the page is "
        'not served.',
    ),
    cfg.StrOpt(
        'terminal_path',
        mutable=True,
        default='/usr/local/share/consoled/xterm',
        help='Directory of xterm.js (@xterm/xterm from npm; tools/setup-pages.sh installs it to the '
        'default). If it does not exist, the page is not served.',
    ),
]

OPTS = [*_LISTEN, *_TLS, *_TRUST, *_DEADLINES, *_LIMITS, *_PAGES]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
