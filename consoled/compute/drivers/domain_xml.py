# SPDX-License-Identifier: Apache-2.0
"""What libvirt's domain XML says of consoles. Pure: text in, data out.

https://libvirt.org/formatdomain.html, "Graphical framebuffers" and "Consoles, serial, parallel & channel
devices".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

# The text is libvirtd's own output, made from its model of the guest: users' strings in it are escaped, and
# it has no document type, hence no entities. One that has is refused all the same, see _Builder.
from xml.etree import ElementTree  # noqa: S405

from consoled.objects import ConsoleType

_GRAPHICS = {'vnc': ConsoleType.NOVNC, 'spice': ConsoleType.SPICE}


@dataclasses.dataclass(frozen=True)
class ListeningConsole:
    """Where the hypervisor listens for a console; ``listen`` is None if the XML does not say."""

    console_type: str
    listen: str | None
    port: int
    options: dict[str, str | None]


@dataclasses.dataclass(frozen=True)
class Domain:
    """A guest: whether it runs, and its consoles that can be reached by TCP."""

    active: bool
    consoles: tuple[ListeningConsole, ...]


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError('has a document type')


def parse(text: str) -> Domain:
    """Read a domain's XML. One that does not run has no consoles: its ports are none, or wishes.

    What can't be reached by TCP, or is no raw stream, is left out: UNIX sockets, ptys, files, UDP, telnet,
    and connections that the hypervisor makes itself.

    :raises ValueError: it is not the XML of a domain
    """
    parser = ElementTree.XMLParser(target=_Builder())  # noqa: S314 - see the import
    try:
        domain = ElementTree.XML(text, parser)  # noqa: S314 - see the import
    except ElementTree.ParseError:
        raise ValueError('is not XML') from None
    if domain.tag != 'domain':
        raise ValueError('is not of a domain')
    if domain.get('id') is None:  # libvirt gives one to those that run
        return Domain(False, ())
    found: dict[tuple[str | None, int], ListeningConsole] = {}
    for devices in domain.findall('devices'):
        for place in (*_graphics(devices), *_serial_ports(devices)):
            # the first serial port is there twice: as <console> too
            found.setdefault((place.listen, place.port), place)
    return Domain(True, tuple(found.values()))


def _graphics(devices: ElementTree.Element) -> Iterator[ListeningConsole]:
    for graphics in devices.findall('graphics'):
        console_type = _GRAPHICS.get(graphics.get('type', ''))
        port, tls_port = _port(graphics.get('port')), _port(graphics.get('tlsPort'))
        listens = graphics.findall('listen')
        if console_type is None or any(each.get('type') in ('socket', 'none') for each in listens):
            continue
        options: dict[str, str | None] = {}
        if tls_port is not None:
            options['tls_port'] = str(tls_port)
            if port is None or _demands_tls(graphics):
                options['use_tls'] = 'true'
        place = port or tls_port
        if place is not None:
            yield ListeningConsole(console_type, _listen(graphics, listens), place, options)


def _demands_tls(graphics: ElementTree.Element) -> bool:
    """Whether SPICE refuses some of its channels on the plain port."""
    modes = [graphics.get('defaultMode'), *(channel.get('mode') for channel in graphics.findall('channel'))]
    return 'secure' in modes


def _listen(graphics: ElementTree.Element, listens: list[ElementTree.Element]) -> str | None:
    """The address; of <listen type='network'>, the one that libvirt found for it."""
    addresses = [each.get('address') for each in listens]
    return next(filter(None, addresses), None) or graphics.get('listen')


def _serial_ports(devices: ElementTree.Element) -> Iterator[ListeningConsole]:
    for device in (*devices.findall('serial'), *devices.findall('console')):
        if device.get('type') != 'tcp':
            continue
        source = next((each for each in device.findall('source') if each.get('mode') == 'bind'), None)
        protocol = device.find('protocol')
        if source is None or (protocol is not None and protocol.get('type', 'raw') != 'raw'):
            continue
        port = _port(source.get('service'))
        if port is not None:
            options: dict[str, str | None] = {'use_tls': 'true'} if source.get('tls') == 'yes' else {}
            yield ListeningConsole(ConsoleType.SERIAL, source.get('host'), port, options)


def _port(text: str | None) -> int | None:
    """The port, or None: not there, not a number, or -1 (not assigned)."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    return int(text) if 1 <= int(text) <= 65535 else None
