# SPDX-License-Identifier: Apache-2.0
"""The serial ports of an instance: numbers, and which are free."""

import dataclasses

from consoled import exception
from consoled.db import claims, consoles, models, ports, sessions
from tests.unit.db import base

_C = models.console_connection.c


class PortsTests:
    def listed(self):
        """Return (number, TCP port, free) of each port."""
        return [
            (each.number, each.console.port, each.free) for each in ports.list_ports(self.db, self.instance)
        ]

    def test_ports_are_numbered_by_tcp_port(self):
        self.define(10002, 10000, 10001)
        self.assertEqual([(1, 10000, True), (2, 10001, True), (3, 10002, True)], self.listed())

    def test_a_port_with_a_live_session_keeps_its_number(self):
        self.define(10000, 10001)
        proxy_id = self.proxy()
        self.open(self.store(10000), proxy_id)
        self.assertEqual([(1, 10000, False), (2, 10001, True)], self.listed())
        self.end_lease(proxy_id)
        self.assertEqual([(1, 10000, True), (2, 10001, True)], self.listed())

    def test_contested_ports_are_not_free(self):
        self.define(10000, 10001)
        other = base.a_console(base.new_uuid(), 10001, host=base.ADDRESS, compute_host='node-2')
        consoles.define(self.db, other.instance_uuid, 'node-2', [other])
        self.assertEqual([(1, 10000, True), (2, 10001, False)], self.listed())
        self.assertEqual([False, True], [each.contested for each in ports.list_ports(self.db, self.instance)])

    def test_only_serial_ports_that_an_agent_has_defined(self):
        self.store(10000)
        self.assertEqual([], self.listed())
        screen = base.a_console(self.instance, 5900, 'novnc')
        serial = base.a_console(self.instance, 10000)
        consoles.define(self.db, self.instance, base.COMPUTE_HOST, [screen, serial])
        self.assertEqual([(1, 10000, True)], self.listed())
        self.instance = base.new_uuid()
        self.assertEqual([], self.listed())

    def test_a_port_is_found_with_its_number_and_options(self):
        self.define(10000, 10001, mode='view')
        found = ports.find(self.db, self.instance, base.ADDRESS, 10001)
        self.assertEqual({'mode': 'view', 'serial_port': '2'}, found.console.options)
        self.assertEqual(base.COMPUTE_HOST, found.console.compute_host)
        self.assertIsNone(ports.find(self.db, self.instance, base.ADDRESS, 10002))
        self.assertEqual({('{"mode":"view"}',)}, set(self.rows(_C.options)))  # the number is not stored

    def elsewhere(self, port, token_hash, session_id=None):
        """Return a request for another port than that of its token."""
        request = self.request(token_hash, self.proxy_id, session_id=session_id or base.new_uuid())
        console = base.a_console(self.instance, port)
        return dataclasses.replace(request, console=console, elsewhere=True)

    def test_a_claim_of_another_port_is_for_the_instance_of_the_token(self):
        self.proxy_id = self.proxy()
        self.define(10000, 10001)
        token_hash = self.store(10000)
        session = self.claim(self.elsewhere(10001, token_hash), console=1)
        self.assertEqual((self.instance, 10001), (session.console.instance_uuid, session.console.port))
        self.assertRaises(claims.SlotsTaken, self.claim, self.elsewhere(10001, token_hash), console=1)
        self.assertRaises(exception.ConsoleGone, self.claim, self.elsewhere(10002, token_hash), console=1)
        self.assertEqual(1, self.count(models.console_session))

    def test_invariant_6_a_repeated_request_says_where_its_session_is(self):
        self.proxy_id = self.proxy()
        self.define(10000, 10001)
        token_hash, session_id = self.store(10000), base.new_uuid()
        self.claim(self.elsewhere(10001, token_hash, session_id), console=1)
        repeated = self.request(token_hash, self.proxy_id, session_id=session_id)
        self.assertEqual((base.ADDRESS, 10001), repeated.opened_at)
        for answer in (self.claim(repeated, console=1), sessions.load(self.db, repeated)):
            self.assertEqual((session_id, 10001), (answer.id, answer.console.port))
        self.define(10000)
        self.assertRaises(exception.ConsoleGone, sessions.load, self.db, repeated)


class SQLitePortsTest(PortsTests, base.DatabaseTestCase):
    pass
