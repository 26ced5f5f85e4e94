# SPDX-License-Identifier: Apache-2.0
"""Consoles in libvirt's domain XML. Pure: text in, data out.

Source: https://libvirt.org/formatdomain.html, "Graphical framebuffers" and "Consoles, serial, parallel &
channel devices".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

# libvirtd writes the text from its own model of the domain: strings of users are escaped, and there is no
# document type and hence no entity. A text with a document type is refused all the same, see _Builder.
from xml.etree import ElementTree  # noqa: S405

from consoled.objects import ConsoleType

_GRAPHICS = {'vnc': ConsoleType.NOVNC, 'spice': ConsoleType.SPICE}


@dataclasses.dataclass(frozen=True)
class ListeningConsole:
    """Address and port at which the hypervisor listens for a console.

    :ivar listen: address; None if the XML has none
    """

    console_type: str
    listen: str | None
    port: int
    options: dict[str, str | None]


@dataclasses.dataclass(frozen=True)
class Domain:
    """A domain: whether it runs, and its consoles that can be reached by TCP."""

    active: bool
    consoles: tuple[ListeningConsole, ...]


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError('has a document type')


def parse(text: str) -> Domain:
    """Read the XML of a domain.

    A domain that does not run has no consoles: its XML has no ports, or those that it may get. Consoles that
    cannot be reached by TCP or are no raw stream are left out: UNIX sockets, ptys, files, UDP, telnet, and
    connections that the hypervisor opens itself.

    :raises ValueError: the text is not the XML of a domain
    """
    parser = ElementTree.XMLParser(target=_Builder())  # noqa: S314 - see the import
    try:
        domain = ElementTree.XML(text, parser)  # noqa: S314 - see the import
    except ElementTree.ParseError:
        raise ValueError('is not well-formed XML') from None
    if domain.tag != 'domain':
        raise ValueError('does not describe a domain')
    if domain.get('id') is None:  # only running domains have one
        return Domain(False, ())
    # libvirt writes the first serial port twice: as <console> too
    by_address: dict[tuple[str | None, int], ListeningConsole] = {}
    for devices in domain.findall('devices'):
        for console in (*_graphics_consoles(devices), *_serial_consoles(devices)):
            by_address.setdefault((console.listen, console.port), console)
    return Domain(True, tuple(by_address.values()))


def _graphics_consoles(devices: ElementTree.Element) -> Iterator[ListeningConsole]:
    for graphics in devices.findall('graphics'):
        console_type = _GRAPHICS.get(graphics.get('type', ''))
        port, tls_port = _parse_port(graphics.get('port')), _parse_port(graphics.get('tlsPort'))
        listens = graphics.findall('listen')
        if console_type is None or any(element.get('type') in ('socket', 'none') for element in listens):
            continue
        options: dict[str, str | None] = {}
        if tls_port is not None:
            options['tls_port'] = str(tls_port)
            if port is None or _requires_tls(graphics):
                options['use_tls'] = 'true'
        any_port = port or tls_port
        if any_port is not None:
            yield ListeningConsole(console_type, _listen_address(graphics, listens), any_port, options)


def _requires_tls(graphics: ElementTree.Element) -> bool:
    """Return whether SPICE refuses one of its channels on the plain port."""
    modes = [graphics.get('defaultMode'), *(channel.get('mode') for channel in graphics.findall('channel'))]
    return 'secure' in modes


def _listen_address(graphics: ElementTree.Element, listens: list[ElementTree.Element]) -> str | None:
    """Return the listen address; for <listen type='network'>, the one that libvirt has resolved."""
    addresses = [element.get('address') for element in listens]
    return next(filter(None, addresses), None) or graphics.get('listen')


def _serial_consoles(devices: ElementTree.Element) -> Iterator[ListeningConsole]:
    for device in (*devices.findall('serial'), *devices.findall('console')):
        if device.get('type') != 'tcp':
            continue
        source = next(
            (element for element in device.findall('source') if element.get('mode') == 'bind'), None
        )
        protocol = device.find('protocol')
        if source is None or (protocol is not None and protocol.get('type', 'raw') != 'raw'):
            continue
        port = _parse_port(source.get('service'))
        if port is not None:
            options: dict[str, str | None] = {'use_tls': 'true'} if source.get('tls') == 'yes' else {}
            yield ListeningConsole(ConsoleType.SERIAL, source.get('host'), port, options)


def _parse_port(text: str | None) -> int | None:
    """Return the port, or None if the attribute is missing, not a number, or -1 (not assigned)."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    return int(text) if 1 <= int(text) <= 65535 else None
