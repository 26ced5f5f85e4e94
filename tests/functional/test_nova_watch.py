# SPDX-License-Identifier: Apache-2.0
"""The watch of sessions, with tables like Nova's in real databases."""

from consoled import deadline, exception
from consoled.db.engine import Database
from consoled.nova.database import NovaDatabase
from consoled.testing import fixtures
from tests.functional import base
from tests.unit.nova import test_watch
from tests.unit.nova.test_source import NovaCase


class _Real:
    engine: str
    lock: str  # statement that keeps others from reading instances while its transaction, or session, lasts

    def new_nova_url(self):
        return base.database_url(self, self.engine)

    def test_a_state_differs_when_the_instance_does(self):
        guest = self.add_instance()
        states = set()
        for values in ({}, {'host': 'cmp2'}, {'launched_at': test_watch.base.now(5)}, {'host': 'cmp1'}):
            if values:
                self.update_instance(guest, **values)
            instance = self.nova.find_instances([guest])[guest]
            self.assertTrue(self.nova.are_unchanged([instance]))
            states.add(instance.state)
        self.assertEqual(4, len(states))
        self.update_instance(guest, launched_at=None)
        self.assertFalse(self.nova.are_unchanged([instance]))
        instance = self.nova.find_instances([guest])[guest]
        self.assertIsNone(instance.state)
        self.assertFalse(self.nova.are_unchanged([instance]))

    def test_a_database_that_hangs_is_not_waited_for(self):
        """Though Nova's URL says nothing of that."""
        url = Database(self.nova_url).transactional_engine.url.set(query={})
        text = url.render_as_string(hide_password=False)
        nova = NovaDatabase.from_conf(self.useFixture(fixtures.Conf(nova__connection=text)).conf)
        self.addCleanup(nova.dispose)
        with self.tables.transactional_engine.connect() as conn:
            conn.exec_driver_sql(self.lock)
            self.assertRaises(
                exception.DatabaseUnavailable,
                deadline.call,
                lambda: nova.find_instances([self.guest]),
                60,
            )
            conn.invalidate()

    def test_guests_that_change_hosts_with_each_other(self):
        """A count of guests by host would not tell."""
        guests = [self.add_instance(host=host) for host in ('cmp1', 'cmp2')]
        before = list(self.nova.find_instances(guests).values())
        self.assertTrue(self.nova.are_unchanged(before))
        for guest, host in zip(guests, ('cmp2', 'cmp1'), strict=True):
            self.update_instance(guest, host=host)
        self.assertFalse(self.nova.are_unchanged(before))


class MariaDBNovaWatchTest(_Real, test_watch.WatchTests, NovaCase):
    engine = 'mariadb'
    lock = 'LOCK TABLES instances WRITE'

    def test_tables_with_the_character_set_of_nova(self):
        """Nova makes its tables in utf8mb3; a connection may have another one."""
        for table in ('instances', 'console_auth_tokens'):
            text = f'ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci'
            self.tables.single(lambda conn, text=text: conn.exec_driver_sql(text))
        session = self.open(self.proxy_id, self.token)
        for _ in range(2):
            self.watcher.run()
        self.assertEqual(['ok', 'ok'], self.passes)
        self.update_instance(self.guest, host='cmp2')
        self.watcher.run()
        self.assertEqual([(session.id, 'console_moved')], self.proxies.cuts)

    def test_a_date_that_is_none_keeps_no_others_from_being_watched(self):
        """MySQL takes it, unless it is told to be strict."""
        self.open_guest()
        session = self.open(self.proxy_id, self.token)
        with self.tables.transactional_engine.connect() as conn:
            conn.exec_driver_sql("SET sql_mode = ''")
            conn.exec_driver_sql(
                f"UPDATE instances SET launched_at = '0000-00-00 00:00:00' WHERE uuid <> '{self.guest}'"
            )
            conn.commit()
            conn.invalidate()
        self.update_instance(self.guest, deleted=3)
        self.watcher.run()
        self.assertEqual([(session.id, 'instance_gone')], self.proxies.cuts)

    def test_an_account_that_is_refused(self):
        url = Database(self.nova_url).transactional_engine.url.set(password='canary')
        self.open(self.proxy_id, self.token)
        db = Database(url.render_as_string(hide_password=False), retry_time=0.1)
        self.addCleanup(db.dispose)
        self.watcher._nova = NovaDatabase(db)
        self.watcher.run()
        self.assertEqual(['unavailable'], self.passes)
        self.assertIn('Access denied for user', self.logged.output)
        self.assertNotIn('canary', self.logged.output)


class PostgreSQLNovaWatchTest(_Real, test_watch.WatchTests, NovaCase):
    engine = 'postgresql'
    lock = 'LOCK TABLE instances IN ACCESS EXCLUSIVE MODE'
