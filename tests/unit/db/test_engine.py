# SPDX-License-Identifier: Apache-2.0
"""Retries around work on the database, and its two engines."""

import logging
import random
import sqlite3
import time
from unittest import mock

import fixtures
import sqlalchemy as sa
import testtools
from hypothesis import given, settings
from hypothesis import strategies as st
from oslo_db import exception as db_exc
from sqlalchemy import exc as sa_exc

from consoled import exception
from consoled.db import engine, models
from consoled.db.engine import Database
from tests.unit.db import base

_I = models.instances.c


def operational(number, text='canary'):
    """Return the error that PyMySQL's error ``number`` becomes."""
    return sa_exc.OperationalError('SELECT', {}, Exception(number, text))


# as psycopg passes them on
REFUSALS = (
    'connection failed: FATAL:  password authentication failed for user "canary"',
    'connection failed: FATAL:  database "canary" does not exist',
    'connection failed: FATAL:  no pg_hba.conf entry for host "canary"',
)


SQLITE_ANSWERS = (
    'duplicate column name: x',
    'index x already exists',
    'no such column: x',
    'attempt to write a readonly database',
)


class FakeTime:
    """A monotonic clock that only sleeping moves."""

    def __init__(self):
        self.now = 1000.0
        self.pauses = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


class RetryTest(testtools.TestCase):
    """With a clock of the test's own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.url = f'sqlite:///{base.new_file(cls)}'

    def setUp(self):
        super().setUp()
        self.clock = FakeTime()
        self.useFixture(fixtures.MockPatchObject(engine, 'time', self.clock))
        self.logged = self.useFixture(fixtures.FakeLogger('consoled.db.engine', level=logging.ERROR))
        self.db = self.database()

    def database(self, **options):
        db = Database(self.url, pool_size=1, **options)
        self.addCleanup(db.dispose)
        return db

    def failing(self, *errors):
        """Return work that raises these errors first, and then returns 'done'."""
        return mock.Mock(side_effect=[*errors, 'done'])

    def test_transient_errors_are_retried(self):
        for error in (
            db_exc.DBDeadlock(),
            db_exc.DBConnectionError(),
            operational(1205),
            sa_exc.InterfaceError('SELECT', {}, Exception()),
            sa_exc.TimeoutError(),
        ):
            for run in (self.db.single, self.db.transaction):
                work = self.failing(error)
                self.assertEqual('done', run(work), error)
                self.assertEqual(2, work.call_count)

    def test_permanent_errors_are_not(self):
        for error in (
            *(operational(number) for number in (1050, 1054, 1060, 1061, 1091, 1142, 1143)),
            *(sa_exc.OperationalError('', {}, sqlite3.OperationalError(text)) for text in SQLITE_ANSWERS),
        ):
            work = self.failing(error)
            self.assertRaises(sa_exc.OperationalError, self.db.single, work)
            self.assertEqual(1, work.call_count)
        self.assertEqual([], self.clock.pauses)

    def test_what_the_database_has_said(self):
        orig = Exception(1060, "Duplicate column name 'x'")
        wrapped = sa_exc.OperationalError('ALTER canary', {}, orig)
        for error in (wrapped, db_exc.DBError(wrapped)):
            self.assertEqual("Duplicate column name 'x'", engine.answer(error))
        error = sa_exc.ProgrammingError('CREATE', {}, Exception('permission denied\nLINE 1: canary'))
        self.assertEqual('permission denied', engine.answer(error))

    def test_a_refused_user_or_database_is_unavailable_at_once_in_one_line(self):
        for error in (
            *(operational(number) for number in (1044, 1045, 1049, 1698)),
            *(sa_exc.OperationalError('', {}, Exception(text)) for text in REFUSALS),
            db_exc.DBConnectionError(sa_exc.OperationalError('', {}, Exception(REFUSALS[0]))),
            db_exc.DBNonExistentDatabase('x'),
        ):
            self.logged.reset_output()
            work = self.failing(error)
            self.assertRaises(exception.DatabaseUnavailable, self.db.single, work)
            self.assertEqual(1, work.call_count, error)
            line = (
                'The database refuses the user, the password or the name of the database in '
                '[database] connection\n'
            )
            self.assertEqual(line, self.logged.output.lstrip('\0'))
            self.assertNotIn('canary', self.logged.output)
        self.assertEqual([], self.clock.pauses)

    def test_other_errors_are_not(self):
        for error in (ValueError(), exception.InvalidToken(), db_exc.DBDuplicateEntry(), db_exc.DBError()):
            for run in (self.db.single, self.db.transaction):
                self.assertRaises(type(error), run, self.failing(error))

    def test_races_are_retried_by_those_who_expect_them(self):
        for error in (db_exc.DBDuplicateEntry(), db_exc.DBReferenceError('t', 'c', 'k', 'k')):
            self.assertEqual('done', self.db.transaction(self.failing(error), racing=True))

    def test_after_the_retry_time_the_database_is_unavailable(self):
        db = self.database(retry_time=4.0)
        error = self.assertRaises(
            exception.DatabaseUnavailable, db.single, mock.Mock(side_effect=operational(2013))
        )
        self.assertTrue(sum(self.clock.pauses) <= 4.0)
        self.assertTrue(len(self.clock.pauses) >= 8, self.clock.pauses)
        self.assertTrue(max(self.clock.pauses) <= 0.5)
        self.assertNotIn('canary', str(error))
        self.assertEqual(1, self.logged.output.count('The database in [database] connection does not answer'))

    @settings(max_examples=30)
    @given(st.floats(0, 10), st.integers(0, 2**32))
    def test_pauses_are_bounded_in_number_length_and_sum(self, retry_time, seed):
        random.seed(seed)
        clock = FakeTime()
        with mock.patch.object(engine, 'time', clock):
            db = Database(self.url, pool_size=1, retry_time=retry_time)
            work = mock.Mock(side_effect=db_exc.DBDeadlock())
            self.assertRaises(exception.DatabaseUnavailable, db.transaction, work)
            db.dispose()
        self.assertEqual(len(clock.pauses) + 1, work.call_count)
        self.assertTrue(sum(clock.pauses) <= retry_time + 0.001)
        for number, pause in enumerate(clock.pauses):
            self.assertTrue(0 <= pause <= min(0.02 * 2**number, 0.5), clock.pauses)


class DatabaseTests:
    def insert(self, uuid):
        return sa.insert(models.instances).values(
            uuid=uuid, compute_host='node-1', created_at=sa.func.current_timestamp()
        )

    def test_a_statement_of_single_is_committed_at_once(self):
        def work(conn):
            conn.execute(self.insert(base.new_uuid()))
            raise ValueError

        self.assertRaises(ValueError, self.db.single, work)
        self.assertEqual(1, self.count(models.instances))

    def test_a_transaction_is_rolled_back_as_a_whole(self):
        def work(conn):
            for _ in range(2):
                conn.execute(self.insert(base.new_uuid()))
            raise ValueError

        self.assertRaises(ValueError, self.db.transaction, work)
        self.assertEqual(0, self.count(models.instances))

    def test_a_duplicate_key_and_a_missing_parent(self):
        self.db.single(lambda conn: conn.execute(self.insert(self.instance)))
        orphan = sa.insert(models.console_connection).values(
            instance_uuid=base.new_uuid(),
            host='h',
            port=1,
            console_type='serial',
            options='{}',
            created_at=sa.func.current_timestamp(),
            updated_at=sa.func.current_timestamp(),
        )
        for statement, error in (
            (self.insert(self.instance), db_exc.DBDuplicateEntry),
            (orphan, db_exc.DBReferenceError),
        ):
            for run in (self.db.single, self.db.transaction):
                self.assertRaises(error, run, lambda conn, s=statement: conn.execute(s))
        self.assertEqual(0, self.count(models.console_connection))

    def test_no_error_shows_values(self):
        for run in (self.db.single, self.db.transaction):
            for _ in range(2):
                try:
                    run(lambda conn: conn.execute(self.insert('canary')))
                except db_exc.DBError as exc:
                    self.assertNotIn('created_at=canary', str(exc))
                    self.assertIn('SQL parameters hidden', str(exc))

    def test_ping(self):
        self.db.ping()
        with mock.patch.object(self.db, '_autocommit') as engine:
            engine.connect.side_effect = db_exc.DBConnectionError()
            self.assertRaises(exception.DatabaseUnavailable, self.db.ping)
            self.assertEqual(1, engine.connect.call_count)


class SQLiteDatabaseTest(DatabaseTests, base.DatabaseTestCase):
    def test_a_writer_waits_for_another_one(self):
        """The write lock is taken when a transaction begins; without it, the second one would fail."""
        order = []

        def outer(conn):
            order.append(conn.execute(sa.select(sa.func.count()).select_from(models.instances)).scalar())
            conn.execute(self.insert(base.new_uuid()))
            return conn.exec_driver_sql('PRAGMA busy_timeout').scalar()

        self.assertTrue(self.db.transaction(outer) > 0)
        self.assertTrue(self.db.transaction(outer) > 0)
        self.assertEqual([0, 1], order)

    def test_readers_and_a_writer_work_side_by_side(self):
        def work(conn):
            conn.execute(self.insert(base.new_uuid()))
            return self.count(models.instances)

        started = time.monotonic()
        self.assertEqual(0, self.db.transaction(work))
        self.assertTrue(time.monotonic() - started < 3)
        self.assertEqual(1, self.count(models.instances))
