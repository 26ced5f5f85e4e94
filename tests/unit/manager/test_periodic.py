# SPDX-License-Identifier: Apache-2.0
"""The sweep and the heartbeat."""

import datetime

import fixtures as fixtures_library
import sqlalchemy as sa

from consoled import exception, version
from consoled.db import managers, models
from consoled.manager import periodic
from consoled.rpc import versions
from tests.unit.manager import base

LONG_AGO = datetime.datetime(2020, 1, 1)


class FailingDatabase:
    """Raises ``error`` whatever is asked of it."""

    def __init__(self, error):
        self.__dict__['error'] = error

    def __getattr__(self, name):
        raise self.error


class PeriodicCase(base.ManagerCase):
    options = {'host': 'manager-1'}

    def setUp(self):
        super().setUp()
        self.logged = self.useFixture(fixtures_library.FakeLogger())

    def set(self, column, value):
        self.db.single(lambda conn: conn.execute(sa.update(column.table).values({column.name: value})))

    def count(self, table):
        return self.db.single(
            lambda conn: conn.execute(sa.select(sa.func.count()).select_from(table)).scalar()
        )


class SweepTest(PeriodicCase):
    def sweep(self, db=None):
        periodic.Sweep(self.conf, db or self.db).run()

    def test_only_what_is_long_over_is_deleted(self):
        self.proxy()
        self.authorize()
        self.sweep()
        self.assertEqual((1, 1), (self.count(models.console_proxy), self.count(models.console_auth_token)))
        self.set(models.console_proxy.c.lease_expires, LONG_AGO)
        self.set(models.console_auth_token.c.expires, LONG_AGO)
        self.sweep()
        self.assertEqual((0, 0), (self.count(models.console_proxy), self.count(models.console_auth_token)))
        self.assertIn('Swept 1 tokens, 1 proxies, ', self.logged.output)

    def test_a_database_that_does_not_answer_is_logged(self):
        self.sweep(FailingDatabase(exception.DatabaseUnavailable()))
        self.assertIn('Skipped the sweep: The database', self.logged.output)
        self.assertNotIn('Traceback', self.logged.output)

    def test_a_fault_does_not_end_the_daemon(self):
        self.sweep(FailingDatabase(ZeroDivisionError()))
        self.assertIn('The sweep failed', self.logged.output)
        self.assertIn('ZeroDivisionError', self.logged.output)


class HeartbeatTest(PeriodicCase):
    def setUp(self):
        super().setUp()
        self.heartbeat = periodic.Heartbeat(self.conf, self.db)

    def listed(self):
        return [(each.name, each.version, each.rpc_version) for each in managers.list_alive(self.db)]

    def test_a_manager_is_listed_until_it_ends(self):
        for _ in range(2):
            self.heartbeat.send()
            self.assertEqual([('manager-1', version.VERSION, versions.RPC_VERSION)], self.listed())
        self.heartbeat.end()
        self.assertEqual([], self.listed())

    def test_a_heartbeat_that_comes_after_the_end_does_not_list_it_again(self):
        self.heartbeat.send()
        self.heartbeat.end()
        self.heartbeat.send()
        self.assertEqual([], self.listed())

    def test_another_manager_of_the_same_name_is_reported_by_both(self):
        other = periodic.Heartbeat(self.conf, self.db)
        self.heartbeat.send()
        self.assertEqual('', self.logged.output)
        other.send()  # it may be this one after a crash
        self.assertIn('[DEFAULT] host = manager-1, was alive 0 s ago', self.logged.output)
        for second, heartbeat in enumerate((self.heartbeat, other, self.heartbeat)):
            self.logged.reset_output()
            # heartbeats are a minute apart, and not in the same millisecond as here
            self.set(models.console_manager.c.seen_at, LONG_AGO + datetime.timedelta(seconds=second))
            heartbeat.send()
            self.assertIn('Another manager has the same name, [DEFAULT] host = manager-1', self.logged.output)

    def test_a_manager_alone_reports_nothing(self):
        for _ in range(3):
            self.heartbeat.send()
        self.heartbeat.end()
        periodic.Heartbeat(self.conf, self.db).send()  # the next life, after a stop
        self.set(models.console_manager.c.seen_at, LONG_AGO)
        periodic.Heartbeat(self.conf, self.db).send()  # and after a long time
        self.assertEqual('', self.logged.output)

    def test_managers_that_are_long_gone_are_forgotten(self):
        self.heartbeat.send()
        self.set(models.console_manager.c.name, 'manager-2')
        self.set(models.console_manager.c.seen_at, LONG_AGO)
        self.heartbeat.send()
        self.assertEqual(1, self.count(models.console_manager))

    def test_a_schema_of_the_previous_release_has_no_list(self):
        table = models.console_manager
        self.db.transaction(table.drop)
        self.heartbeat.send()
        self.assertEqual('', self.logged.output)
        self.db.transaction(table.create)  # by an upgrade while the manager runs
        self.heartbeat.send()
        self.assertEqual('manager-1', self.listed()[0][0])

    def test_a_manager_that_was_never_listed_ends_without_the_database(self):
        self.db.dispose()
        self.heartbeat.end()
        self.assertEqual('', self.logged.output)

    def test_failures_are_logged(self):
        for error, text in (
            (exception.DatabaseUnavailable(), 'Could not update the list of managers: The database'),
            (ZeroDivisionError(), 'ZeroDivisionError'),
        ):
            periodic.Heartbeat(self.conf, FailingDatabase(error)).send()
            self.assertIn(text, self.logged.output)
