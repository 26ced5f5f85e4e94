# SPDX-License-Identifier: Apache-2.0
"""Consoles as proxies reach them, built from where the hypervisor listens."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from oslo_config import cfg

from consoled import objects
from consoled.conf.consoles import GROUP_OF_TYPE


def proxy_address(listen: str | None, host_address: str) -> str:
    """Return the address that a proxy connects to.

    A wildcard or loopback address means nothing to another machine and is replaced by ``host_address``. Any
    other address is the operator's choice and is used as it is.

    :param listen: address or name that the hypervisor listens on; None if it is not known
    :param host_address: the option ``server_proxyclient_address``
    """
    if listen is None or listen in ('', '*') or listen == 'localhost' or listen.startswith('localhost.'):
        return host_address
    try:
        address = ipaddress.ip_address(listen)
    except ValueError:
        return listen  # a name
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return host_address if address.is_unspecified or address.is_loopback else listen


class ConsoleBuilder:
    """Builds consoles according to the options of their type.

    Options are read at each call, because SIGHUP changes them.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def build(
        self,
        instance_uuid: str,
        console_type: str,
        listen: str | None,
        port: int,
        options: Mapping[str, str | None],
    ) -> objects.ConsoleConnection | None:
        """Return the console for proxies, or None if this host does not offer consoles of this type.

        :param listen: address or name that the hypervisor listens on; None if it is not known
        :param options: options of the console, as in ``ConsoleConnection.options``
        :raises ValueError: the host name or the port is malformed
        """
        group = GROUP_OF_TYPE[console_type]
        if group is None or not self._conf[group].enabled:
            return None
        return objects.ConsoleConnection(
            instance_uuid=instance_uuid,
            console_type=console_type,
            host=proxy_address(listen, self._conf[group].server_proxyclient_address),
            port=port,
            compute_host=self._conf.host,
            access_url_base=self._conf[group].base_url,
            options=dict(options),
        )
