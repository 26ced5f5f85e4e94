# SPDX-License-Identifier: Apache-2.0
"""Consoles in libvirt's domain XML, as libvirt 9.0 and later write it."""

import contextlib
from xml.sax import saxutils

import testtools
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consoled.compute.drivers import domain_xml
from consoled.compute.drivers.domain_xml import ListeningConsole

# output of virsh dumpxml for a guest of QEMU 7.2, shortened
REAL = """
<domain type='qemu' id='1'>
  <name>g1</name>
  <uuid>11111111-1111-4111-8111-111111111111</uuid>
  <metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
    <graphics type='vnc' port='1'/></nova:instance></metadata>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='tcp'>
      <source mode='bind' host='127.0.0.1' service='41000' tls='no'/>
      <protocol type='raw'/>
      <target type='isa-serial' port='0'><model name='isa-serial'/></target>
      <alias name='serial0'/>
    </serial>
    <serial type='tcp'>
      <source mode='bind' host='127.0.0.1' service='41001' tls='no'/>
      <protocol type='raw'/>
      <target type='isa-serial' port='1'><model name='isa-serial'/></target>
      <alias name='serial1'/>
    </serial>
    <console type='tcp'>
      <source mode='bind' host='127.0.0.1' service='41000' tls='no'/>
      <protocol type='raw'/>
      <target type='serial' port='0'/>
      <alias name='serial0'/>
    </console>
    <graphics type='vnc' port='5900' autoport='yes' listen='0.0.0.0'>
      <listen type='address' address='0.0.0.0'/>
    </graphics>
    <graphics type='spice' port='5901' tlsPort='5902' autoport='yes' listen='192.0.2.7'>
      <listen type='network' address='192.0.2.7' network='default'/>
    </graphics>
  </devices>
</domain>
"""


def domain(*devices, attributes="type='qemu' id='1'"):
    return f'<domain {attributes}><devices>{"".join(devices)}</devices></domain>'


def consoles(*devices, **how):
    return list(domain_xml.parse(domain(*devices, **how)).consoles)


def serial(service='10000', host='127.0.0.1', tag='serial', inner='', **source):
    more = ''.join(f" {name}='{value}'" for name, value in source.items())
    return (
        f"<{tag} type='tcp'><source mode='bind' host='{host}' service='{service}'{more}/>{inner}"
        f"<target port='0'/></{tag}>"
    )


class ParseTest(testtools.TestCase):
    def test_a_real_guest(self):
        found = domain_xml.parse(REAL)
        self.assertTrue(found.active)
        self.assertEqual(
            [
                ListeningConsole('novnc', '0.0.0.0', 5900, {}),
                ListeningConsole('spice-html5', '192.0.2.7', 5901, {'tls_port': '5902'}),
                ListeningConsole('serial', '127.0.0.1', 41000, {}),
                ListeningConsole('serial', '127.0.0.1', 41001, {}),
            ],
            list(found.consoles),
        )

    def test_a_domain_that_does_not_run_has_no_consoles(self):
        """Its XML has the fixed ports that it will get."""
        found = domain_xml.parse(REAL.replace(" id='1'", ''))
        self.assertFalse(found.active)
        self.assertEqual((), found.consoles)

    def test_graphics(self):
        for xml, expected in (
            ("type='vnc' port='5900'", [ListeningConsole('novnc', None, 5900, {})]),
            ("type='vnc' port='5900' listen='::'", [ListeningConsole('novnc', '::', 5900, {})]),
            ("type='vnc' port='5900' websocket='5700'", [ListeningConsole('novnc', None, 5900, {})]),
            ("type='spice' port='5901'", [ListeningConsole('spice-html5', None, 5901, {})]),
            (
                "type='spice' tlsPort='5902'",
                [ListeningConsole('spice-html5', None, 5902, {'tls_port': '5902', 'use_tls': 'true'})],
            ),
            (
                "type='spice' port='-1' tlsPort='5902'",
                [ListeningConsole('spice-html5', None, 5902, {'tls_port': '5902', 'use_tls': 'true'})],
            ),
            (
                "type='spice' port='5901' tlsPort='5902' defaultMode='secure'",
                [ListeningConsole('spice-html5', None, 5901, {'tls_port': '5902', 'use_tls': 'true'})],
            ),
            ("type='spice' port='5901' tlsPort='-1'", [ListeningConsole('spice-html5', None, 5901, {})]),
            ("type='vnc' port='-1' autoport='yes'", []),
            ("type='vnc' port='0'", []),
            ("type='vnc' port='65536'", []),
            ("type='vnc' port='five'", []),
            ("type='vnc'", []),
            ("type='sdl' display=':0'", []),
            ("type='egl-headless'", []),
            ("type='rdp' port='3389'", []),
        ):
            self.assertEqual(expected, consoles(f'<graphics {xml}/>'), xml)

    def test_where_graphics_listen(self):
        for listen, expected in (
            ("<listen type='address' address='192.0.2.7'/>", '192.0.2.7'),
            ("<listen type='network' network='default' address='192.0.2.8'/>", '192.0.2.8'),
            ("<listen type='network' network='default'/>", '127.0.0.1'),
            ("<listen type='address'/>", '127.0.0.1'),
        ):
            found = consoles(f"<graphics type='vnc' port='5900' listen='127.0.0.1'>{listen}</graphics>")
            self.assertEqual([expected], [console.listen for console in found], listen)
        for listen in ("<listen type='socket' socket='/run/x'/>", "<listen type='none'/>"):
            self.assertEqual([], consoles(f"<graphics type='vnc' port='5900'>{listen}</graphics>"), listen)

    def test_a_channel_that_requires_tls(self):
        found = consoles(
            "<graphics type='spice' port='5901' tlsPort='5902'>"
            "<channel name='main' mode='secure'/></graphics>"
        )
        self.assertEqual([{'tls_port': '5902', 'use_tls': 'true'}], [console.options for console in found])

    def test_serial_ports(self):
        for xml, expected in (
            (serial(), [ListeningConsole('serial', '127.0.0.1', 10000, {})]),
            (serial(tls='yes'), [ListeningConsole('serial', '127.0.0.1', 10000, {'use_tls': 'true'})]),
            (serial(tls='no', host='::'), [ListeningConsole('serial', '::', 10000, {})]),
            (serial(inner="<protocol type='raw'/>"), [ListeningConsole('serial', '127.0.0.1', 10000, {})]),
            (serial(inner="<protocol type='telnet'/>"), []),
            (serial(service='ssh'), []),
            (serial(service='-1'), []),
            (serial(service='٣'), []),
            ("<serial type='pty'><source path='/dev/pts/1'/></serial>", []),
            ("<serial type='unix'><source mode='bind' path='/run/x'/></serial>", []),
            ("<serial type='udp'><source mode='bind' host='127.0.0.1' service='10000'/></serial>", []),
            ("<serial type='tcp'><source mode='connect' host='192.0.2.1' service='10000'/></serial>", []),
            ("<serial type='tcp'/>", []),
            (serial(tag='console'), [ListeningConsole('serial', '127.0.0.1', 10000, {})]),
            (serial() + serial(tag='console'), [ListeningConsole('serial', '127.0.0.1', 10000, {})]),
            (
                serial() + serial(tag='console', service='10001'),
                [
                    ListeningConsole('serial', '127.0.0.1', 10000, {}),
                    ListeningConsole('serial', '127.0.0.1', 10001, {}),
                ],
            ),
            (serial(tag='channel'), []),
        ):
            self.assertEqual(expected, consoles(xml), xml)

    def test_texts_that_are_not_a_domain(self):
        for text in ('', 'nonsense', '<domain', '<network/>', '<domain></network>'):
            self.assertRaises(ValueError, domain_xml.parse, text)

    def test_a_document_type_is_refused_and_with_it_every_entity(self):
        bomb = '<!DOCTYPE domain [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
        outside = '<!DOCTYPE domain SYSTEM "file:///etc/passwd">'
        for head in (bomb, outside, '<!DOCTYPE domain>'):
            self.assertRaises(
                ValueError, domain_xml.parse, head + domain('<x>&b;</x>' if 'b ' in head else '')
            )

    @given(st.text())
    def test_any_text_is_a_domain_or_refused(self, text):
        with contextlib.suppress(ValueError):
            domain_xml.parse(text)

    @settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw of all characters is
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(['graphics', 'serial', 'console', 'source', 'listen', 'x']),
                st.dictionaries(
                    st.sampled_from(
                        ['type', 'port', 'tlsPort', 'listen', 'mode', 'host', 'service', 'address']
                    ),
                    st.one_of(
                        st.sampled_from(['vnc', 'spice', 'tcp', 'bind', '5900', '-1', '0', '127.0.0.1', '']),
                        st.text(st.characters(exclude_categories=['Cc', 'Cs', 'Cn', 'Co']), max_size=5),
                    ),
                ),
            )
        )
    )
    def test_any_devices_give_distinct_valid_consoles(self, devices):
        def element(name, attributes, inner=''):
            text = ''.join(f' {key}={saxutils.quoteattr(value)}' for key, value in attributes.items())
            return f'<{name}{text}>{inner}</{name}>'

        nested = ''.join(element(name, attributes) for name, attributes in devices)
        found = consoles(*(element(name, attributes, nested) for name, attributes in devices))
        for console in found:
            self.assertIn(console.console_type, ('novnc', 'spice-html5', 'serial'))
            self.assertTrue(1 <= console.port <= 65535)
        self.assertEqual(len(found), len({(console.listen, console.port) for console in found}))
