# SPDX-License-Identifier: Apache-2.0
"""From where a hypervisor listens to where a proxy connects, by the options of the console's type."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from oslo_config import cfg

from consoled import objects
from consoled.conf.consoles import GROUP_OF_TYPE


def proxy_address(listen: str | None, own: str) -> str:
    """The address for a proxy to connect to.

    A wildcard or loopback address says nothing to another machine: ``own`` stands for it. Any other is the
    operator's choice and is used as it is.

    :param listen: address or name that the hypervisor listens on; None if it did not say
    :param own: ``server_proxyclient_address``
    """
    if listen is None or listen in ('', '*') or listen == 'localhost' or listen.startswith('localhost.'):
        return own
    try:
        address = ipaddress.ip_address(listen)
    except ValueError:
        return listen  # a name
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return own if address.is_unspecified or address.is_loopback else listen


class ConsoleBuilder:
    """Makes consoles. Options are read at each use: SIGHUP changes them."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def place(
        self,
        instance_uuid: str,
        console_type: str,
        listen: str | None,
        port: int,
        options: Mapping[str, str | None],
    ) -> objects.ConsoleConnection | None:
        """The console for a proxy, or None: this host does not offer consoles of this type.

        :raises ValueError: it is no console: a name or port is malformed
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
