# SPDX-License-Identifier: Apache-2.0
"""The database's clock."""

import datetime
import time

import sqlalchemy as sa
import testtools
from sqlalchemy.dialects import mysql, postgresql, sqlite

from consoled.db import clock
from tests.unit.db import base

OFFSETS = (0, 1, -1, 59, -3600, 86400, 10**6)


class ClockTests:
    def test_now_is_utc_with_a_zone(self):
        moment = clock.now(self.db)
        self.assertEqual(datetime.UTC, moment.tzinfo)
        self.assertTrue(abs(moment.timestamp() - time.time()) < 60, moment)

    def test_the_clock_does_not_run_backwards(self):
        moments = [clock.now(self.db) for _ in range(3)]
        self.assertEqual(sorted(moments), moments)

    def test_utc_after_is_that_many_seconds_after_now(self):
        columns = [clock.utc_now(), *(clock.utc_after(seconds) for seconds in OFFSETS)]
        now, *moments = self.db.single(lambda conn: conn.execute(sa.select(*columns)).one())
        differences = [round((moment - now).total_seconds()) for moment in moments]
        self.assertEqual(list(OFFSETS), differences)

    def test_seconds_may_be_a_parameter(self):
        statement = sa.select(clock.utc_now(), clock.utc_after(sa.bindparam('seconds')))
        for seconds in (-90, 0, 90):
            now, moment = self.db.single(
                lambda conn, s=seconds: conn.execute(statement, {'seconds': s}).one()
            )
            self.assertEqual(seconds, round((moment - now).total_seconds()))


class SQLiteClockTest(ClockTests, base.DatabaseTestCase):
    def test_the_text_is_that_of_a_date_time_which_sqlalchemy_stores(self):
        """SQLite compares texts, so another format would give wrong results."""
        statement = str(clock.NOW.compile(dialect=sqlite.dialect()))
        text = self.db.single(lambda conn: conn.exec_driver_sql(statement).scalar_one())
        self.assertEqual(datetime.datetime.fromisoformat(text).isoformat(' ', 'microseconds'), text)


class StatementTest(testtools.TestCase):
    """The SQL of each dialect: to the microsecond, and independent of the session's time zone."""

    def test_statements(self):
        for dialect, now in (
            (mysql.dialect(), 'UTC_TIMESTAMP(6)'),
            (postgresql.dialect(), "timezone('UTC', statement_timestamp())"),
            (sqlite.dialect(), "strftime('%Y-%m-%d %H:%M:%f', 'now')"),
        ):
            self.assertIn(now, str(clock.NOW.compile(dialect=dialect)))
        self.assertIn(
            'TIMESTAMPADD(SECOND,', str(sa.select(clock.utc_after(5)).compile(dialect=mysql.dialect()))
        )


class AwareTest(testtools.TestCase):
    def test_a_moment_gets_its_zone_and_stays_the_same(self):
        moment = datetime.datetime(2026, 11, 30, 23, 59, 59, 999999)
        self.assertEqual('2026-11-30T23:59:59.999999+00:00', clock.aware(moment).isoformat())
