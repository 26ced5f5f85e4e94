# SPDX-License-Identifier: Apache-2.0
"""What Nova's proxies do with an option of nova.conf, and consoled does not: a sentence for each."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from consoled.nova.settings import PAGES, Own, Values, served


class _Remark(NamedTuple):
    """An option that cannot be honoured as it is.

    :ivar applies: whether it is set to a value that matters
    :ivar text: the end of the sentence that begins with the option
    """

    group: str
    name: str
    applies: Callable[[Values, Own], bool]
    text: str


def _is_true(group: str, name: str) -> Callable[[Values, Own], bool]:
    return lambda nova, own: bool(nova.get(group, name))


def _no_certificate(nova: Values, own: Own) -> bool:
    cert = nova.get('DEFAULT', 'cert') if nova.is_set('DEFAULT', 'cert') else ''
    return bool(cert) and not nova.get('DEFAULT', 'ssl_only') and not os.path.exists(cert)


def _is_cell0(nova: Values, own: Own) -> bool:
    url = nova.get('database', 'connection') or ''
    return url.partition('?')[0].endswith('cell0') and ('nova', 'connection') not in own.names


def _no_pages(nova: Values, own: Own) -> bool:
    web = nova.get('DEFAULT', 'web')
    pages = [page for names in PAGES.values() for page in names]
    return bool(web) and not any(os.path.exists(os.path.join(web, page)) for page in pages)


def _half_of_vencrypt(nova: Values, own: Own) -> bool:
    names = ('vencrypt_client_cert', 'vencrypt_client_key')
    return 'vencrypt' in nova.get('vnc', 'auth_schemes') and (
        len([name for name in names if nova.get('vnc', name)]) == 1
    )


def _name_over_ipv6(nova: Values, own: Own) -> bool:
    return bool(nova.get('DEFAULT', 'source_is_ipv6')) and any(
        _is_name(host) for host, _ in served(nova, own)
    )


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


_REMARKS = (
    _Remark(
        'database',
        'connection',
        _is_cell0,
        'is the database of cell0, which has no consoles: no token opens. Name the configuration of the cell '
        'in [nova] config_file, as of its conductor',
    ),
    _Remark(
        'DEFAULT',
        'cert',
        _no_certificate,
        'names a file that does not exist: users are served without TLS, as by Nova',
    ),
    _Remark('DEFAULT', 'record', _is_true('DEFAULT', 'record'), 'has no effect: sessions are not recorded'),
    _Remark(
        'DEFAULT',
        'daemon',
        _is_true('DEFAULT', 'daemon'),
        'has no effect: the program stays in the foreground',
    ),
    _Remark(
        'DEFAULT',
        'source_is_ipv6',
        _name_over_ipv6,
        'has no effect on a host name: write the IPv6 address to listen on',
    ),
    _Remark(
        'DEFAULT',
        'web',
        _no_pages,
        'has no pages of noVNC or spice-html5: those of [proxy] novnc_path and spice_path are served',
    ),
    _Remark(
        'console',
        'ssl_minimum_version',
        lambda nova, own: nova.get('console', 'ssl_minimum_version') == 'tlsv1_1',
        'is tlsv1_1: TLS 1.2 is the oldest version here',
    ),
    _Remark(
        'vnc',
        'auth_schemes',
        lambda nova, own: (
            'vencrypt' in nova.get('vnc', 'auth_schemes') and ('vnc', 'vencrypt_check_name') not in own.names
        ),
        'lists vencrypt: as by Nova, the certificate of a hypervisor is checked, but not its name. Set [vnc] '
        'vencrypt_check_name if certificates name the addresses of consoles',
    ),
    _Remark(
        'vnc',
        'vencrypt_client_cert',
        _half_of_vencrypt,
        'has no effect: vencrypt_client_cert and vencrypt_client_key are needed both',
    ),
    _Remark(
        'vnc',
        'xvpvncproxy_host',
        lambda nova, own: nova.is_set('vnc', 'xvpvncproxy_host'),
        'has no effect: XVP consoles are not served',
    ),
    _Remark('rdp', 'enabled', _is_true('rdp', 'enabled'), 'has no effect: RDP consoles are not served'),
    _Remark(
        'workarounds',
        'enable_consoleauth',
        _is_true('workarounds', 'enable_consoleauth'),
        'has no effect: tokens are read from the database, and not from nova-consoleauth',
    ),
    _Remark(
        'cells',
        'enable',
        _is_true('cells', 'enable'),
        'is true: tokens of cells v1 are in nova-consoleauth, and none of them opens here',
    ),
)


def unusable(nova: Values, own: Own, where: Callable[[str, str], str]) -> Iterator[str]:
    """Yield a sentence for each option that has not the effect that it has on Nova's proxies.

    :param where: returns how to name an option
    """
    for remark in _REMARKS:
        if remark.applies(nova, own):
            yield f'{where(remark.group, remark.name)} {remark.text}.'
