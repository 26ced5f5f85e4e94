# SPDX-License-Identifier: Apache-2.0
"""Consoles that two compute hosts claim are opened for neither, and operators are told (invariant 12)."""

import logging

import fixtures as fixtures_library

from consoled import exception, objects
from consoled.manager import contests
from tests.functional import base as functional_base
from tests.unit.manager import base


class ContestTest(base.ManagerCase):
    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures_library.FakeLogger('consoled', level=logging.ERROR))
        self.other = functional_base.new_uuid()
        self.define(10000)
        self.token = self.authorize().token
        self.proxy_id = self.proxy()

    def intrude(self, ports=(10000,)):
        """Let another compute host define a guest at the same address."""
        consoles = [
            functional_base.a_console(self.other, port, host=functional_base.ADDRESS, compute_host='node-2')
            for port in ports
        ]
        wanted = objects.ConsoleConnectionList(objects=consoles)
        self.api.define_consoles(self.context, self.other, 'node-2', wanted, wait=True)

    def seen(self, step):
        return self.counted('consoled_contested_consoles_total', step=step)

    def test_neither_is_authorized(self):
        self.intrude()
        self.assertRaises(exception.ConsoleContested, self.authorize)
        self.assertRaises(
            exception.ConsoleContested,
            self.authorize,
            instance=self.other,
            host=functional_base.ADDRESS,
            compute_host='node-2',
        )
        for instance, compute_host in ((self.instance, 'node-1'), (self.other, 'node-2')):
            self.assertRaises(
                exception.ConsoleContested,
                self.authorize,
                None,
                instance=instance,
                host=None,
                compute_host=compute_host,
            )
        self.assertEqual(4, self.seen('authorize'))

    def test_neither_is_opened_and_no_agent_is_asked(self):
        self.open(self.proxy_id, self.token)
        self.api.revoke(self.context, 'test', session_id=self.sessions().pop())
        self.token = self.authorize().token
        asked = len(self.agents.asked)
        self.intrude()
        self.assertRaises(exception.ConsoleContested, self.open, self.proxy_id, self.token)
        self.assertRaises(exception.ConsoleContested, self.api.validate, self.context, self.token)
        self.assertEqual(asked, len(self.agents.asked))
        self.assertEqual(2, self.seen('open'))

    def test_a_session_goes_on(self):
        session = self.open(self.proxy_id, self.token)
        self.intrude()
        self.assertEqual({session.id}, self.sessions())
        self.assertEqual([], self.proxies.cuts)

    def test_when_the_other_gives_the_address_up_all_is_well(self):
        self.intrude()
        self.assertRaises(exception.ConsoleContested, self.open, self.proxy_id, self.token)
        self.intrude(ports=[10001])
        self.open(self.proxy_id, self.token)
        self.authorize()

    def test_the_log_says_who_once(self):
        self.assertEqual('', self.log.output)
        self.intrude()
        for text in (self.instance, self.other, 'node-1', 'node-2', f'{functional_base.ADDRESS}:10000'):
            self.assertIn(text, self.log.output)
        for _ in range(5):
            self.assertRaises(exception.ConsoleContested, self.open, self.proxy_id, self.token)
        self.assertEqual(1, len(self.log.output.splitlines()))
        self.assertNotIn(self.token, self.log.output)

    def test_a_host_that_defines_all_its_guests(self):
        console = functional_base.a_console(
            self.other, 10000, host=functional_base.ADDRESS, compute_host='node-2'
        )
        wanted = objects.ConsoleConnectionList(objects=[console])
        self.api.define_host(self.context, 'node-2', [self.other], wanted)
        self.assertIn(self.other, self.log.output)
        self.assertEqual(1, self.seen('define'))

    def test_another_form_of_the_address_is_the_address(self):
        console = functional_base.a_console(
            self.other, 10000, host=f'::ffff:{functional_base.ADDRESS}', compute_host='node-2'
        )
        wanted = objects.ConsoleConnectionList(objects=[console])
        self.api.define_consoles(self.context, self.other, 'node-2', wanted, wait=True)
        self.assertRaises(exception.ConsoleContested, self.open, self.proxy_id, self.token)


class ReporterTest(base.ManagerCase):
    def setUp(self):
        super().setUp()
        self.now = 0.0
        self.reporter = contests.ContestReporter(self.db, self.metrics, clock=lambda: self.now)

    def contests(self, number):
        return [
            contests.Contest('a', 'node-1', f'192.0.2.{each % 250}', 1 + each, 'b', 'node-2')
            for each in range(number)
        ]

    def test_each_address_once_a_minute(self):
        (contest,) = self.contests(1)
        self.assertEqual([contest], self.reporter._due([contest]))
        self.assertEqual([], self.reporter._due([contest]))
        self.now += 61
        self.assertEqual([contest], self.reporter._due([contest]))

    def test_a_host_with_many_does_not_fill_the_log(self):
        self.assertEqual(contests._MAX_LINES, len(self.reporter._due(self.contests(100))))

    def test_few_addresses_are_remembered(self):
        for contest in self.contests(contests._MAX_ADDRESSES + 100):
            self.reporter._due([contest])
        self.assertEqual(contests._MAX_ADDRESSES, len(self.reporter._last_logged))
