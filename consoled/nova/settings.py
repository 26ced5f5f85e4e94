# SPDX-License-Identifier: Apache-2.0
"""Which options of consoled take their values from which options of Nova, as a table."""

from __future__ import annotations

import ipaddress
import os
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from consoled.nova.options import BUS_FLAGS, BUS_TLS, Name


class Values(Protocol):
    """The options of a nova.conf."""

    def get(self, group: str, name: str) -> Any:
        """Return the value of an option: Nova's default if the file does not set it."""

    def is_set(self, group: str, name: str) -> bool:
        """Return whether the file sets it."""


class Own(NamedTuple):
    """What the configuration of consoled says itself.

    :ivar names: the options that it sets
    :ivar proxies: ``[nova] proxies``
    """

    names: frozenset[Name]
    proxies: Sequence[str] | None = None


Value = Callable[[Values, Own], Any]


class Row(NamedTuple):
    """An option of consoled that takes its value from Nova.

    :ivar ours: the option of consoled
    :ivar theirs: the options of Nova that decide
    :ivar value: makes the value; None leaves consoled's default
    :ivar together: rows with the same word are taken together: none is, if consoled's files set one of them
    """

    ours: Name
    theirs: tuple[Name, ...]
    value: Value
    together: str = ''


def _same(group: str, name: str) -> Value:
    """Return what takes a value as it is, if it is set and not empty."""

    def value(nova: Values, own: Own) -> Any:
        found = nova.get(group, name) if nova.is_set(group, name) else None
        return None if found == '' else found

    return value


# Drivers that consoled brings, for the URLs in which Nova names none, or one that may not be installed here.
_DRIVERS = {'mysql': 'mysql+pymysql', 'mariadb': 'mysql+pymysql', 'postgresql': 'postgresql+psycopg'}


def _database(nova: Values, own: Own) -> str | None:
    text: str | None = nova.get('database', 'connection')
    if not text:
        return None
    if parameters := nova.get('database', 'connection_parameters'):
        text += ('&' if '?' in text else '?') + parameters
    text = _without_plugins(text)
    try:
        url = sa.make_url(text)
        url.get_dialect().import_dbapi()
    except ImportError:
        return _DRIVERS.get(url.get_backend_name(), url.drivername) + text[len(url.drivername) :]
    except (sa.exc.ArgumentError, ValueError):
        pass  # the check of [nova] connection says so
    return text


def _without_plugins(url: str) -> str:
    """Return the URL without plugins of SQLAlchemy, which are in Nova's Python only: devstack's dbcounter."""
    before, _, query = url.partition('?')
    kept = [part for part in query.split('&') if part and not part.startswith('plugin=')]
    return '?'.join([before, '&'.join(kept)] if kept else [before])


def _bus(nova: Values, own: Own) -> str | None:
    """Return the URL with the options that its broker requires of clients, in its query."""
    url: str | None = nova.get('DEFAULT', 'transport_url') or None
    if url is None:
        return None
    group = 'oslo_messaging_rabbit'
    # consoled's own are about its own bus, which is this one unless it says otherwise
    mine = (
        set()
        if ('DEFAULT', 'transport_url') in own.names
        else {name for where, name in own.names if where == group}
    )
    tls = BUS_TLS if nova.get(group, 'ssl') else ()
    there = urllib.parse.parse_qs(url.partition('?')[2], keep_blank_values=True)
    query = {
        name: str(nova.get(group, name)).lower() if name in BUS_FLAGS else nova.get(group, name)
        for name in (*BUS_FLAGS, *tls, 'rabbit_login_method')
        if nova.is_set(group, name) and name not in mine and name not in there
    }
    if not query or not url.startswith('rabbit'):
        return url
    return url + ('&' if '?' in url else '?') + urllib.parse.urlencode(query)


def _nova_bus(nova: Values, own: Own) -> str | None:
    """Return the same if consoled has a bus of its own; else Nova's is the bus of both."""
    return _bus(nova, own) if ('DEFAULT', 'transport_url') in own.names else None


class _Proxy(NamedTuple):
    """A proxy of Nova."""

    group: str
    host: str
    port: str


PROXIES = {
    'novnc': _Proxy('vnc', 'novncproxy_host', 'novncproxy_port'),
    'spice': _Proxy('spice', 'html5proxy_host', 'html5proxy_port'),
    'serial': _Proxy('serial_console', 'serialproxy_host', 'serialproxy_port'),
}


def served(nova: Values, own: Own) -> list[tuple[str, int]]:
    """Return the addresses of ``[nova] proxies``.

    By default these are the proxies that are enabled, or configured though nothing is said of that.
    """
    found: dict[tuple[str, int], None] = {}
    for name, (group, host, port) in PROXIES.items():
        here = nova.get(group, 'enabled')
        if not nova.is_set(group, 'enabled'):
            here = here or nova.is_set(group, host) or nova.is_set(group, port)
        if here if own.proxies is None else name in own.proxies:
            found[nova.get(group, host) or '0.0.0.0', nova.get(group, port)] = None  # noqa: S104 - as Nova
    return list(found)


def _first(part: int) -> Value:
    return lambda nova, own: next((address[part] for address in served(nova, own)), None)


def _others(nova: Values, own: Own) -> list[str] | None:
    addresses = served(nova, own)
    others = [f'[{host}]:{port}' if ':' in host else f'{host}:{port}' for host, port in addresses[1:]]
    return others if addresses else None


_HOSTS = tuple((proxy.group, proxy.host) for proxy in PROXIES.values())
_PORTS = tuple((proxy.group, proxy.port) for proxy in PROXIES.values())


def has_certificate(nova: Values) -> bool:
    """Return whether Nova's proxies would serve TLS, or not start without the file.

    The default is a file in some working directory, so it counts only if nothing else may be served.
    """
    if nova.get('DEFAULT', 'ssl_only'):
        return True
    return nova.is_set('DEFAULT', 'cert') and os.path.exists(nova.get('DEFAULT', 'cert'))


def _tls(name: str) -> Value:
    return lambda nova, own: (nova.get('DEFAULT', name) or None) if has_certificate(nova) else None


def _ssl_only(nova: Values, own: Own) -> bool | None:
    return bool(nova.get('DEFAULT', 'ssl_only')) if has_certificate(nova) else None


def _minimum_version(nova: Values, own: Own) -> str | None:
    version: str = nova.get('console', 'ssl_minimum_version')
    return version if version in ('tlsv1_2', 'tlsv1_3') else None


# Nova believes any address. This machine's own and those of the link are another matter: a compute host with
# a default of 127.0.0.1 would give users what listens here.
_NO_GUEST = ('0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3')
_IPV6 = ('2000::/3', 'fc00::/7')
_PROXYCLIENT = (
    ('vnc', 'server_proxyclient_address'),
    ('spice', 'server_proxyclient_address'),
    ('serial_console', 'proxyclient_address'),
)


def _networks(nova: Values, own: Own) -> list[str]:
    """Return all networks that a guest may be in, and loopback addresses that the file gives consoles."""
    networks = [ipaddress.IPv4Network('0.0.0.0/0')]
    for text in _NO_GUEST:
        excluded = ipaddress.IPv4Network(text)
        networks = [
            part
            for network in networks
            for part in (network.address_exclude(excluded) if excluded.subnet_of(network) else [network])
        ]
    return [
        *map(str, sorted(networks)),
        *_IPV6,
        *sorted(set(filter(None, map(_loopback(nova), _PROXYCLIENT)))),
    ]


def _loopback(nova: Values) -> Callable[[Name], str | None]:
    def address(name: Name) -> str | None:
        text = nova.get(*name) if nova.is_set(*name) else None
        try:
            found = ipaddress.ip_address('127.0.0.1' if text == 'localhost' else text or '')
        except ValueError:
            return None
        return str(found) if found.is_loopback else None

    return address


def _vencrypt(name: str) -> Value:
    """Return what takes an option that Nova reads only if it uses VeNCrypt."""

    def value(nova: Values, own: Own) -> Any:
        if 'vencrypt' not in nova.get('vnc', 'auth_schemes'):
            return None
        pair = ('vencrypt_client_cert', 'vencrypt_client_key')
        if name in pair and not all(nova.get('vnc', each) for each in pair):
            return None
        return nova.get('vnc', name) or None

    return value


def _no_name_check(nova: Values, own: Own) -> bool | None:
    return False if 'vencrypt' in nova.get('vnc', 'auth_schemes') else None


# what is in the directory, by which it is recognized: one option of Nova names it for all its proxies
PAGES = {
    'novnc_path': ('vnc_lite.html', 'vnc_auto.html', 'vnc.html'),
    'spice_path': ('spice_auto.html',),
}


def _pages(option: str) -> Value:
    def value(nova: Values, own: Own) -> str | None:
        web: str | None = nova.get('DEFAULT', 'web')
        found = web and any(os.path.exists(os.path.join(web, page)) for page in PAGES[option])
        return web if found else None

    return value


_DAY = 86400  # seconds: the default of [consoleauth] max_token_ttl


def _token_ttl(nova: Values, own: Own) -> int | None:
    ttl: int = nova.get('consoleauth', 'token_ttl')
    return ttl if ttl and nova.is_set('consoleauth', 'token_ttl') else None


def _longest_ttl(nova: Values, own: Own) -> int | None:
    """Return a limit that lets tokens live as long as Nova's do."""
    ttl = _token_ttl(nova, own)
    return ttl if ttl is not None and ttl > _DAY else None


def _row(group: str, name: str, their_group: str, their_name: str = '') -> Row:
    theirs = (their_group, their_name or name)
    return Row((group, name), (theirs,), _same(*theirs))


TABLE: tuple[Row, ...] = (
    _row('DEFAULT', 'host', 'DEFAULT'),
    Row(('DEFAULT', 'transport_url'), (('DEFAULT', 'transport_url'),), _bus),
    Row(('nova', 'connection'), (('database', 'connection'),), _database),
    Row(('nova', 'transport_url'), (('DEFAULT', 'transport_url'),), _nova_bus),
    _row('nova', 'exchange', 'DEFAULT', 'control_exchange'),
    Row(('proxy', 'host'), _HOSTS, _first(0), 'addresses'),
    Row(('proxy', 'port'), _PORTS, _first(1), 'addresses'),
    Row(('proxy', 'additional_addresses'), (*_HOSTS, *_PORTS), _others, 'addresses'),
    Row(('proxy', 'ssl_cert'), (('DEFAULT', 'cert'), ('DEFAULT', 'ssl_only')), _tls('cert'), 'certificate'),
    Row(('proxy', 'ssl_key'), (('DEFAULT', 'key'),), _tls('key'), 'certificate'),
    Row(('proxy', 'ssl_only'), (('DEFAULT', 'ssl_only'),), _ssl_only, 'certificate'),
    _row('proxy', 'ssl_ciphers', 'console'),
    Row(('proxy', 'ssl_minimum_version'), (('console', 'ssl_minimum_version'),), _minimum_version),
    _row('proxy', 'allowed_origins', 'console'),
    Row(('proxy', 'match_origin_by_host'), (('console', 'allowed_origins'),), lambda nova, own: True),
    Row(('proxy', 'allowed_networks'), _PROXYCLIENT, _networks),
    Row(('proxy', 'novnc_path'), (('DEFAULT', 'web'),), _pages('novnc_path')),
    Row(('proxy', 'spice_path'), (('DEFAULT', 'web'),), _pages('spice_path')),
    Row(('consoleauth', 'token_ttl'), (('consoleauth', 'token_ttl'),), _token_ttl),
    Row(('consoleauth', 'max_token_ttl'), (('consoleauth', 'token_ttl'),), _longest_ttl),
    _row('consoleauth', 'enforce_session_timeout', 'consoleauth'),
    Row(('vnc', 'auth_schemes'), (('vnc', 'auth_schemes'),), _same('vnc', 'auth_schemes'), 'vencrypt'),
    *(
        Row(('vnc', name), (('vnc', name),), _vencrypt(name), 'vencrypt')
        for name in ('vencrypt_ca_certs', 'vencrypt_client_cert', 'vencrypt_client_key')
    ),
    Row(('vnc', 'vencrypt_check_name'), (('vnc', 'auth_schemes'),), _no_name_check),
    _row('vnc', 'base_url', 'vnc', 'novncproxy_base_url'),
    _row('vnc', 'server_proxyclient_address', 'vnc'),
    _row('spice', 'base_url', 'spice', 'html5proxy_base_url'),
    _row('spice', 'server_proxyclient_address', 'spice'),
    _row('serial_console', 'base_url', 'serial_console'),
    _row('serial_console', 'server_proxyclient_address', 'serial_console', 'proxyclient_address'),
    _row('compute', 'libvirt_uri', 'libvirt', 'connection_uri'),
)
