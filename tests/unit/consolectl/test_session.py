# SPDX-License-Identifier: Apache-2.0
"""``consolectl session`` without a network: filters, pages, formats; cutting a session."""

import csv
import io
import json
import uuid

import fixtures

from consoled.consolectl import base
from consoled.consolectl.session import ListSessions
from tests.unit.cli.base import INSTANCE, CliCase, StubAPI


class ListTest(CliCase):
    def test_output_formats(self):
        _, table, _ = self.ctl('session', 'list', api=StubAPI(2))
        self.assertIn(str(uuid.UUID(int=2)), table)
        self.assertNotIn('proxy_id', table)
        _, table, _ = self.ctl('session', 'list', '--long', api=StubAPI(2))
        self.assertIn('proxy_id', table)

        _, out, _ = self.ctl('session', 'list', '-f', 'json', api=StubAPI(2))
        rows = json.loads(out)
        self.assertEqual(list(ListSessions.columns), list(rows[0]))
        self.assertEqual('2026-01-02T03:04:05Z', rows[0]['connected_at'])
        self.assertIsNone(rows[0]['ends_at'])

        _, out, _ = self.ctl('session', 'list', '-f', 'csv', api=StubAPI(2))
        self.assertEqual(['alice', 'alice'], [row['user_id'] for row in csv.DictReader(io.StringIO(out))])

        _, out, _ = self.ctl('session', 'list', '-f', 'value', '-c', 'port', '-c', 'host', api=StubAPI(2))
        self.assertEqual('192.0.2.9 5900\n' * 2, out)

    def test_no_sessions_are_an_empty_list(self):
        code, out, err = self.ctl('session', 'list', '-f', 'json')
        self.assertEqual((0, [], ''), (code, json.loads(out), err))

    def test_pages_until_the_end(self):
        self.useFixture(fixtures.MockPatchObject(base, '_PAGE_SIZE', 3))
        for count, calls in ((0, 1), (2, 1), (3, 2), (7, 3)):
            _, out, _ = self.ctl('session', 'list', '-f', 'value', '-c', 'id', api=StubAPI(count))
            self.assertEqual([found.id for found in self.api.sessions], out.split())
            self.assertEqual(calls, len(self.api.calls))

    def test_pages_until_the_limit(self):
        self.useFixture(fixtures.MockPatchObject(base, '_PAGE_SIZE', 3))
        _, out, _ = self.ctl('session', 'list', '-f', 'value', '-c', 'id', '--limit', '4', api=StubAPI(9))
        self.assertEqual([found.id for found in self.api.sessions[:4]], out.split())
        self.assertEqual([3, 1], [call[1] for call in self.api.calls])

    def test_filters_are_passed_to_the_managers(self):
        proxy = str(uuid.uuid4())
        self.ctl(
            *('session', 'list', '--instance', INSTANCE.upper(), '--project', 'p', '--user', 'u'),
            *('--compute-host', 'c', '--proxy', proxy),
        )
        wanted = {
            'instance_uuid': INSTANCE,
            'project_id': 'p',
            'user_id': 'u',
            'compute_host': 'c',
            'proxy_id': proxy,
        }
        self.assertEqual([('list_sessions', 1000, None, wanted)], self.api.calls)


class CutTest(CliCase):
    def test_counts_are_shown(self):
        code, out, _ = self.ctl('session', 'cut', INSTANCE, '--reason', 'maintenance', '-f', 'json')
        self.assertEqual((0, {'tokens': 2, 'sessions': 1}), (code, json.loads(out)))
        self.assertEqual([('revoke', 'maintenance', {'session_id': INSTANCE})], self.api.calls)

    def test_an_unknown_session_is_an_error(self):
        code, out, err = self.ctl('session', 'cut', INSTANCE, api=StubAPI(counts=(0, 0)))
        self.assertEqual((1, ''), (code, out))
        self.assertTrue(err.startswith('consolectl: session_not_found: '), err)
