# SPDX-License-Identifier: Apache-2.0
"""Consoles at an address that an instance of another compute host has too (invariant 12)."""

from consoled import exception
from consoled.db import consoles, contests, models, sessions, tokens
from tests.unit.db import base


class ContestsTests:
    def setUp(self):
        super().setUp()
        self.other = base.new_uuid()

    def define_at(
        self, instance, compute_host, port=5900, host=base.ADDRESS, console_type='novnc', **options
    ):
        console = base.a_console(instance, port, console_type, host=host, compute_host=compute_host)
        console.options = options
        consoles.define(self.db, instance, compute_host, [console])

    def found(self, **filters):
        return {(each.instance_uuid, each.other_instance) for each in contests.find(self.db, **filters)}

    def contest(self):
        self.define_at(self.instance, 'node-1')
        self.define_at(self.other, 'node-2')

    def assert_contested(self):
        self.assertEqual({(self.instance, self.other), (self.other, self.instance)}, self.found())

    def test_two_compute_hosts_define_the_same_address(self):
        self.contest()
        self.assert_contested()
        (contest,) = contests.find(self.db, compute_host='node-2')
        self.assertEqual(
            contests.Contest(self.other, 'node-2', base.ADDRESS, 5900, self.instance, 'node-1'), contest
        )
        for filters in ({'instance_uuid': self.other}, {'host': base.ADDRESS, 'port': 5901}):
            self.assertEqual(1 if 'instance_uuid' in filters else 0, len(self.found(**filters)))

    def test_neither_gets_a_token(self):
        self.contest()
        for instance, compute_host in ((self.instance, 'node-1'), (self.other, 'node-2')):
            grant = base.a_grant(instance, 5900, 'novnc', host=base.ADDRESS, compute_host=compute_host)
            self.assertRaises(exception.ConsoleContested, tokens.store, self.db, 'a' * 64, grant, 60, None)
            grant = base.a_grant(instance, None, 'novnc', compute_host=compute_host)
            self.assertRaises(
                exception.ConsoleContested,
                tokens.store_next_free,
                self.db,
                'b' * 64,
                grant,
                60,
                None,
                unlimited=True,
            )
            self.assertEqual([], consoles.list_free(self.db, instance, 'novnc'))

    def test_tokens_that_were_stored_before_are_marked(self):
        self.define_at(self.instance, 'node-1')
        grant = base.a_grant(self.instance, 5900, 'novnc')
        tokens.store(self.db, 'a' * 64, grant, 60, None)

        def contested():
            valid = tokens.validate(self.db, 'a' * 64, single_use=False)
            request = sessions.find_for_open(self.db, 'a' * 64, base.new_uuid(), base.new_uuid(), None)
            self.assertEqual(valid.contested, request.contested)
            return valid.contested

        self.assertFalse(contested())
        self.define_at(self.other, 'node-2')
        self.assertTrue(contested())
        consoles.define(self.db, self.other, 'node-2', [])
        self.assertFalse(contested())

    def test_a_token_for_an_address_that_another_host_has_defined(self):
        """What another host authorizes is remembered as long as its token lives: neither is believed."""
        self.define_at(self.instance, 'node-1')
        grant = base.a_grant(self.other, 5900, 'novnc', host=base.ADDRESS, compute_host='node-2')
        self.assertRaises(exception.ConsoleContested, tokens.store, self.db, 'a' * 64, grant, 60, None)
        self.assert_contested()
        tokens.delete(self.db, 'a' * 64)
        self.assertEqual({(self.other, self.instance)}, self.found())

    def test_names_in_any_case_and_other_forms_of_an_address(self):
        for one, other, shown in (
            ('Node-1.example', 'node-1.EXAMPLE.', 'node-1.example:5900 of'),
            ('2001:DB8:0::1', '2001:db8::1', '[2001:db8::1]:5900 of'),
        ):
            self.define_at(self.instance, 'node-1', host=one)
            self.define_at(self.other, 'node-2', host=other)
            self.assert_contested()
            self.assertTrue(str(contests.find(self.db)[0]).startswith(shown))

    def test_two_tokens_for_one_address_of_two_hosts(self):
        one = base.a_grant(self.instance, 5900, 'novnc')
        tokens.store(self.db, 'a' * 64, one, 60, None)
        two = base.a_grant(self.other, 5900, 'novnc', host=base.ADDRESS, compute_host='node-2')
        self.assertRaises(exception.ConsoleContested, tokens.store, self.db, 'b' * 64, two, 60, None)
        self.assert_contested()

    def test_a_guest_that_moves_is_one_instance(self):
        self.define_at(self.instance, 'node-1')
        self.define_at(self.instance, 'node-2')
        self.assertEqual(set(), self.found())

    def test_two_guests_of_one_host_are_for_its_agent_to_tell_apart(self):
        self.define_at(self.instance, 'node-1')
        self.define_at(self.other, 'node-1')
        self.assertEqual(set(), self.found())

    def test_other_addresses_are_not_contested(self):
        self.define_at(self.instance, 'node-1')
        self.define_at(self.other, 'node-2', port=5901)
        self.define_at(base.new_uuid(), 'node-3', host='192.0.2.11')
        self.assertEqual(set(), self.found())

    def test_an_instance_of_an_unknown_host_loses_to_one_that_an_agent_has_defined(self):
        tokens.store(
            self.db, 'a' * 64, base.a_grant(self.other, 5900, compute_host=models.UNKNOWN_HOST), 60, None
        )
        self.assertEqual(set(), self.found())
        self.define_at(self.instance, 'node-1')
        self.assertEqual({(self.other, self.instance)}, self.found())

    def test_another_port_that_leads_there_with_tls(self):
        self.define_at(self.instance, 'node-1', 5900, tls_port='5901', console_type='spice-html5')
        self.define_at(self.other, 'node-2', 7000, tls_port='5900', console_type='spice-html5')
        self.assertEqual({(self.other, self.instance)}, self.found())
        self.define_at(self.other, 'node-2', 7000, tls_port='5901', console_type='spice-html5')
        self.assert_contested()
        self.define_at(self.other, 'node-2', 7000, tls_port='5902', console_type='spice-html5')
        self.assertEqual(set(), self.found())

    def test_paths_tell_consoles_at_one_address_apart(self):
        mine, other = self.instance, self.other
        self.define_at(mine, 'node-1', 443, internal_access_path='/a')
        self.define_at(other, 'node-2', 443, internal_access_path='/b', zzz='another option')
        self.assertEqual(set(), self.found())
        for options in ({'internal_access_path': '/a', 'aaa': 'x'}, {'internal_access_path': None}, {}):
            self.define_at(other, 'node-2', 443, **options)
            self.assert_contested()


class SQLiteContestsTest(ContestsTests, base.DatabaseTestCase):
    pass
