# SPDX-License-Identifier: Apache-2.0
"""The list of managers."""

from consoled.db import managers, models
from tests.unit.db import base

_M = models.console_manager.c


class ManagersTests:
    def names(self, **kwargs):
        return [manager.name for manager in managers.list_alive(self.db, **kwargs)]

    def make_old(self, name, seconds):
        """Make a manager's last heartbeat so many seconds old."""
        self.age(_M.seen_at, seconds, _M.name == name)

    def test_a_manager_is_listed_from_its_first_heartbeat(self):
        self.assertEqual([], self.names())
        managers.record_heartbeat(self.db, 'b', '0.1.0', '1.0')
        managers.record_heartbeat(self.db, 'a', '0.2.0', '1.1')
        found = managers.list_alive(self.db)
        self.assertEqual(
            [('a', '0.2.0', '1.1'), ('b', '0.1.0', '1.0')],
            [(each.name, each.version, each.rpc_version) for each in found],
        )
        for each in found:
            self.assertTrue(0 <= each.age < 60, each.age)

    def test_the_age_is_that_of_the_last_heartbeat(self):
        managers.record_heartbeat(self.db, 'a', '0.1.0', '1.0')
        self.make_old('a', 100)
        (found,) = managers.list_alive(self.db)
        self.assertTrue(99 <= found.age < 160, found.age)

    def test_a_later_heartbeat_brings_the_manager_back_with_its_release(self):
        managers.record_heartbeat(self.db, 'a', '0.1.0', '1.0')
        self.make_old('a', 1000)
        self.assertEqual([], self.names())
        managers.record_heartbeat(self.db, 'a', '0.2.0', '1.1')
        (found,) = managers.list_alive(self.db)
        self.assertEqual(('0.2.0', '1.1'), (found.version, found.rpc_version))

    def test_a_silent_manager_is_not_alive(self):
        for name in ('lost', 'late'):
            managers.record_heartbeat(self.db, name, '0.1.0', '1.0')
        self.make_old('lost', managers.ALIVE_WITHIN + 1)
        self.make_old('late', managers.ALIVE_WITHIN - 60)
        self.assertEqual(['late'], self.names())
        self.assertEqual(['late', 'lost'], self.names(within=1000))

    def test_a_manager_that_stops_is_removed(self):
        """Names are compared with their case."""
        for name in ('a', 'A'):
            managers.record_heartbeat(self.db, name, '0.1.0', '1.0')
        managers.remove(self.db, 'a')
        managers.remove(self.db, 'a')
        self.assertEqual(['A'], self.names())

    def test_managers_that_have_been_silent_for_long_are_deleted(self):
        for name in ('lost', 'alive'):
            managers.record_heartbeat(self.db, name, '0.1.0', '1.0')
        self.make_old('lost', 100)
        self.assertEqual(0, managers.delete_silent(self.db, silent_for=200))
        self.assertEqual(1, managers.delete_silent(self.db, silent_for=50))
        self.assertEqual(['alive'], self.names(within=1000))

    def test_the_schema_has_the_table(self):
        self.assertTrue(managers.has_table(self.db))


class SQLiteManagersTest(ManagersTests, base.DatabaseTestCase):
    pass
