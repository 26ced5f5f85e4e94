# SPDX-License-Identifier: Apache-2.0
"""Definitions of an instance's consoles, and the consoles that are free."""

import json

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import exception
from consoled.db import consoles, models, sessions
from tests.unit.db import base

_I = models.instances.c
_C = models.console_connection.c
_T = models.console_auth_token.c
_S = models.console_session.c


class ConsolesTests:
    def instance_row(self):
        ((host, defined, retired_at),) = self.rows(
            _I.compute_host, _I.defined, _I.retired_at, where=[_I.uuid == self.instance]
        )
        return host, bool(defined), retired_at

    def test_a_definition_replaces_the_consoles(self):
        self.assertEqual(consoles.Defined([], False), self.define(10000, 10001))
        self.assertEqual([10000, 10001], self.ports())
        self.assertEqual(consoles.Defined([], True), self.define(10001, 10002))
        self.assertEqual([10001, 10002], self.ports())
        self.assertEqual((base.COMPUTE_HOST, True, None), self.instance_row())

    def test_a_repetition_changes_nothing(self):
        self.define(10000)
        token_hash = self.store()
        self.assertEqual(consoles.Defined([], False), self.define(10000))
        self.assertTrue(self.is_valid(token_hash))

    def test_a_console_that_vanished_loses_tokens_and_sessions(self):
        self.define(10000, 10001)
        kept, lost = self.store(10000), self.store(10001)
        proxy_id = self.proxy()
        staying, session = self.open(kept, proxy_id), self.open(lost, proxy_id)
        self.assertEqual(consoles.Defined([session.id], True), self.define(10000))
        self.assertEqual((True, False), (self.is_valid(kept), self.is_valid(lost)))
        self.assertEqual('console_gone', self.cut_reason(session.id))
        self.assertIsNone(self.cut_reason(staying.id))

    def test_another_type_or_other_options_make_another_console(self):
        self.define(10000)
        for change in ('options', 'console_type'):
            token_hash = self.store(options={} if change == 'options' else {'mode': 'view'})
            session = self.open(token_hash, self.proxy())
            console = base.a_console(self.instance, 10000)
            console.options = {'mode': 'view'}
            if change == 'console_type':
                console.console_type = 'novnc'
            defined = consoles.define(self.db, self.instance, base.COMPUTE_HOST, [console])
            self.assertEqual(consoles.Defined([session.id], True), defined, change)
            self.assertFalse(self.is_valid(token_hash))
            sessions.close(self.db, session.id)

    def test_another_base_url_is_the_same_console(self):
        self.define(10000)
        token_hash = self.store()
        console = base.a_console(self.instance, 10000)
        console.access_url_base = None
        defined = consoles.define(self.db, self.instance, base.COMPUTE_HOST, [console])
        self.assertEqual(consoles.Defined([], False), defined)
        self.assertTrue(self.is_valid(token_hash))
        self.assertEqual([(None,)], self.rows(_C.access_url_base))

    def test_an_instance_that_moved_loses_all_its_consoles(self):
        self.define(10000)
        token_hash = self.store()
        session = self.open(token_hash, self.proxy())
        self.assertEqual(consoles.Defined([session.id], True), self.define(10000, compute_host='node-2'))
        self.assertFalse(self.is_valid(token_hash))
        self.assertEqual('console_moved', self.cut_reason(session.id))
        self.assertEqual(('node-2', True, None), self.instance_row())

    def test_an_empty_definition_of_a_host_that_the_instance_has_left_is_ignored(self):
        self.define(10000, compute_host='node-2')
        self.assertEqual(consoles.Defined([], False), self.define())
        self.assertEqual([10000], self.ports())
        self.assertEqual(consoles.Defined([], True), self.define(compute_host='node-2'))
        self.assertEqual([], self.ports())

    def test_an_empty_definition_makes_no_instance(self):
        self.assertEqual(consoles.Defined([], False), self.define())
        self.assertEqual(0, self.count(models.instances))

    def test_the_agent_names_a_compute_host_that_was_unknown(self):
        """Tokens and sessions stay, and are found by the host from then on."""
        token_hash = self.store(compute_host=models.UNKNOWN_HOST)
        session = self.open(token_hash, self.proxy())
        self.assertEqual(consoles.Defined([], False), self.define(10000, mode='view'))
        self.assertEqual((base.COMPUTE_HOST, True, None), self.instance_row())
        self.assertEqual([(base.COMPUTE_HOST,)], self.rows(_T.compute_host))
        self.assertEqual([(base.COMPUTE_HOST,)], self.rows(_S.compute_host))
        self.assertIsNone(self.cut_reason(session.id))
        # whoever stored the token did not know all options: the agent's are not another console
        self.assertEqual([('{"mode":"view"}',)], self.rows(_C.options))

    def test_a_definition_removes_the_mark_of_a_retired_instance(self):
        self.store()
        self.age(_I.retired_at, 10)
        self.define(10000)
        self.assertEqual((base.COMPUTE_HOST, True, None), self.instance_row())

    # list_free

    def free(self, console_type='serial'):
        found = consoles.list_free(self.db, self.instance, console_type)
        return [console.port for console in found]

    def test_consoles_with_a_live_session_are_not_free(self):
        self.define(10001, 10000, 10002)
        self.assertEqual([10000, 10001, 10002], self.free())
        self.assertEqual([], self.free('novnc'))
        proxy_id = self.proxy()
        session = self.open(self.store(10000), proxy_id)
        self.open(self.store(10002), self.proxy())
        self.assertEqual([10001], self.free())
        self.end_lease(proxy_id)
        self.assertEqual([10000, 10001], self.free())
        sessions.close(self.db, session.id)
        self.assertEqual([10000, 10001], self.free())

    def test_a_free_console_is_complete(self):
        self.define(10000, mode='view')
        (found,) = consoles.list_free(self.db, self.instance, 'serial')
        expected = base.a_console(self.instance, 10000)
        expected.options = {'mode': 'view'}
        self.assertEqual(expected.obj_to_primitive(), found.obj_to_primitive())

    def test_free_consoles_of_an_unknown_instance(self):
        self.assertRaises(exception.InstanceNotFound, self.free)


class SQLiteConsolesTest(ConsolesTests, base.DatabaseTestCase):
    pass


class OptionsTest(testtools.TestCase):
    @given(st.dictionaries(st.text(max_size=8), st.none() | st.text(max_size=8), max_size=5), st.randoms())
    def test_equal_options_are_equal_text_in_any_order(self, options, random):
        items = list(options.items())
        random.shuffle(items)
        text = consoles.encode_options(dict(items))
        self.assertEqual(consoles.encode_options(options), text)
        self.assertEqual(options, consoles.decode_options(text))
        self.assertEqual(options, json.loads(text))
