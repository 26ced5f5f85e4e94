# SPDX-License-Identifier: Apache-2.0
"""A guest with several serial ports, through the proxy daemon: what a refused user may open instead."""

import http.client
import json

from consoled import objects
from consoled.testing.guests.tcp_guests import EchoGuest
from tests.functional import base, proxy_base
from tests.functional.raw_user import TEXT, frame

PORTS = 3


class PortsTest(proxy_base.ProxyTestCase):
    """Echo guests stand for the serial ports; an agent has defined them, and is asked about each."""

    def setUp(self):
        super().setUp()
        ports = [self.add(EchoGuest()) for _ in range(PORTS)]
        self.serial = sorted(ports, key=lambda guest: guest.port)
        consoles = [
            base.a_console(self.instance, guest.port, 'serial', host='127.0.0.1') for guest in self.serial
        ]
        wanted = objects.ConsoleConnectionList(objects=consoles)
        self.api.define_consoles(self.context, self.instance, base.COMPUTE_HOST, wanted, wait=True)
        self.asked = self.agent().asked

    def refused(self, target, status=409):
        _, answer = self.ask(target, Accept='application/json')
        self.assertEqual(status, answer.status, answer.body)
        return json.loads(answer.body)

    def connections(self):
        return [guest.connections for guest in self.serial]

    def test_a_refused_user_learns_what_is_free_and_opens_what_is_chosen(self):
        target = self.grant(self.serial[0])
        self.opened(target=target)
        refused = self.refused(target)
        self.assertEqual(('console_in_use', PORTS, [2, 3]), self.said(refused))
        self.assertEqual([1, 0, 0], self.connections())
        user = self.opened(target=f'{target}&serial_port=3')
        self.assert_echo(user)
        self.assertEqual([1, 0, 1], self.connections())
        self.assertEqual(self.serial[2].port, self.asked[-1]['port'])
        self.assertEqual(('console_in_use', PORTS, [2]), self.said(self.refused(f'{target}&serial_port=3')))

    def said(self, refused):
        return refused['code'], refused['serial_ports'], refused['free_ports']

    def test_the_page_that_asks_for_the_reason_gets_the_same(self):
        target = self.grant(self.serial[0])
        self.opened(target=target)
        self.refused(target)
        self.assertEqual((409, ('console_in_use', PORTS, [2, 3])), self.explained(target, self.daemon))

    def explained(self, target, daemon):
        """Ask for the reason as a page does; return the status, and what the answer says."""
        connection = http.client.HTTPConnection('127.0.0.1', daemon.port, timeout=proxy_base.PATIENCE)
        self.addCleanup(connection.close)
        connection.request('GET', target, headers={'Accept': 'application/json'})
        answer = connection.getresponse()
        return answer.status, self.said(json.load(answer))

    def test_a_process_that_has_not_refused_the_user_knows_the_reason_too(self):
        other = self.useFixture(self.new_daemon())
        other.wait_ready()
        target = self.grant(self.serial[0])
        self.opened(target=target)
        self.assertEqual((409, ('console_in_use', PORTS, [2, 3])), self.explained(target, other))
        target += '&serial_port=2'
        self.opened(target=target)
        self.assertEqual((409, ('console_in_use', PORTS, [3])), self.explained(target, other))

    def test_numbers_that_are_none_and_ports_that_do_not_exist(self):
        target = self.grant(self.serial[0])
        self.assertEqual('bad_request', self.refused(f'{target}&serial_port=x', 400)['code'])
        self.assertEqual('invalid_argument', self.refused(f'{target}&serial_port=999', 400)['code'])
        self.assertEqual('console_gone', self.refused(f'{target}&serial_port=4', 404)['code'])
        self.set(serial_console__other_ports='refuse')
        self.assertEqual('invalid_argument', self.refused(f'{target}&serial_port=2', 400)['code'])
        self.assertEqual([0, 0, 0], self.connections())

    def test_without_a_valid_token_nothing_is_listed(self):
        self.opened(self.serial[0])
        for target in (f'/?token={"x" * 43}', f'/?token={"x" * 43}&serial_port=2'):
            self.assertEqual({'code', 'reason', 'retryable'}, set(self.refused(target, 401)))

    def test_the_next_free_port_is_opened_and_only_clients_that_can_show_it_are_told(self):
        self.set(serial_console__other_ports='next')
        target = self.grant(self.serial[0])
        self.opened(target=target)
        user, answer = self.ask(target, Sec_WebSocket_Protocol='consoled.flow, consoled.serial')
        self.assertEqual((101, 'consoled.serial'), (answer.status, answer.headers['sec-websocket-protocol']))
        self.assertEqual((TEXT, {'serial_port': 2}), self.read_text(user))
        self.assert_echo(user)
        user, answer = self.ask(target, Sec_WebSocket_Protocol='consoled.flow')
        self.assertEqual(101, answer.status)
        self.assert_echo(user)
        self.assertEqual([1, 1, 1], self.connections())
        self.assertEqual({'code', 'reason', 'retryable'}, set(self.refused(target)))

    def read_text(self, user):
        opcode, payload = user.frame()
        return opcode, json.loads(payload)

    def test_a_client_that_gets_the_port_of_its_token_is_told_nothing(self):
        user, answer = self.ask(
            self.grant(self.serial[1]), Sec_WebSocket_Protocol='consoled.flow, consoled.serial'
        )
        self.assertEqual(101, answer.status)
        user.send(frame(b'hello'))
        self.assertEqual(b'hello', user.message(5))

    def test_invariant_5_what_revokes_the_token_cuts_the_session_of_the_other_port(self):
        target = self.grant(self.serial[0])
        first = self.opened(target=target)
        second = self.opened(target=f'{target}&serial_port=2')
        self.api.revoke(self.context, 'test', instance_uuid=self.instance)
        self.assertEqual([4403, 4403], [first.close_code(), second.close_code()])
        self.assertEqual('invalid_token', self.refused(f'{target}&serial_port=3', 401)['code'])

    def test_invariant_4_a_chosen_port_is_free_again_when_its_user_has_left(self):
        target = self.grant(self.serial[0])
        self.opened(target=target)
        for _ in range(3):
            self.opened(target=f'{target}&serial_port=2').leave()
            self.wait_until(lambda: self.count('console_session') == 1, 'the end of the session')
