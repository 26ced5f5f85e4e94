# SPDX-License-Identifier: Apache-2.0
"""The checks of ``consoled-status``: result and advice for each state of a cell."""

import datetime

import fixtures
import testtools
from oslo_upgradecheck.upgradecheck import Code

from consoled.db.contests import Contest
from consoled.db.legacy import Use
from consoled.db.managers import Manager
from consoled.upgradecheck import checks
from consoled.upgradecheck.cell import Cell

NOW = datetime.datetime(2026, 11, 23, 7, 0, 0, tzinfo=datetime.UTC)
TTL = 600
UNKNOWN = 'The database does not answer.'


def cell(**changes):
    values = {
        'revision': '0004',
        'pending': [],
        'now': NOW,
        'managers': [],
        'usage': [],
        'last_expiry': None,
        'contests': [],
    }
    return Cell(**(values | changes))


def after(**time):
    return NOW + datetime.timedelta(**time)


class ChecksCase(testtools.TestCase):
    def check(self, code, result, *said):
        """Assert the code, and that the details contain each of these texts; return the details."""
        self.assertEqual(code, result.code, result.details)
        for text in said:
            self.assertIn(text, result.details)
        return result.details


class SchemaTest(ChecksCase):
    def test_at_head(self):
        self.check(Code.SUCCESS, checks.check_schema(cell()), '0004')

    def test_behind(self):
        behind = cell(revision='0002', pending=['0003', '0004'])
        self.check(Code.FAILURE, checks.check_schema(behind), '0002', '0003, 0004', 'db upgrade')

    def test_an_empty_database(self):
        empty = cell(revision=None, pending=['0001', '0002'])
        self.check(Code.FAILURE, checks.check_schema(empty), 'no tables', 'db upgrade')

    def test_another_programs_database(self):
        foreign = cell(revision=None, pending=['0001'], foreign=['alembic_version', 'services'])
        said = self.check(Code.FAILURE, checks.check_schema(foreign), 'alembic_version, services')
        self.assertNotIn('db upgrade', said)

    def test_upgraded_by_a_newer_release(self):
        self.check(Code.WARNING, checks.check_schema(cell(revision='0099', pending=None)), '0099', 'newer')

    def test_an_unknown_state(self):
        self.check(Code.FAILURE, checks.check_schema(UNKNOWN), UNKNOWN)


class AddressesTest(ChecksCase):
    def test_each_host_has_its_own(self):
        self.check(Code.SUCCESS, checks.check_addresses(cell()))

    def test_contested_ones_are_named(self):
        contests = [
            Contest('guest-1', 'node-1', '192.0.2.10', 5900 + number, 'guest-2', 'node-2')
            for number in range(5)
        ]
        result = checks.check_addresses(cell(contests=contests))
        said = self.check(Code.WARNING, result, '192.0.2.10:5902', 'node-1', 'node-2', 'purge', '2 more')
        self.assertNotIn('5903', said)

    def test_an_unknown_state(self):
        self.check(Code.WARNING, checks.check_addresses(UNKNOWN), 'Unknown')
        self.check(Code.WARNING, checks.check_addresses(cell(contests=None)), 'Unknown')


class ManagersTest(ChecksCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(checks, 'VERSION', '1.10.0'))

    def managers(self, *releases):
        alive = [Manager(f'm{number}', release, '1.0', 12.3) for number, release in enumerate(releases)]
        return checks.check_managers(cell(managers=alive))

    def test_all_of_this_release(self):
        self.check(Code.SUCCESS, self.managers('1.10.0', '1.10.0'), 'm0 (1.10.0, seen 12 s ago)', 'm1')

    def test_an_older_one(self):
        said = self.check(Code.WARNING, self.managers('1.10.0', '1.9.0'), 'older than this one', 'm1 (1.9.0')
        self.assertNotIn('m0', said)

    def test_a_newer_or_odd_one(self):
        for release in ('2.0.0', '1.11.0', '1.10.0.dev3', 'odd'):
            self.check(Code.WARNING, self.managers(release), 'another release', f'm0 ({release}')

    def test_none(self):
        self.check(Code.WARNING, self.managers(), 'None has sent a heartbeat within the last 3 min')

    def test_unknown(self):
        self.check(Code.WARNING, checks.check_managers(cell(managers=None)), 'db upgrade')
        self.check(Code.WARNING, checks.check_managers(UNKNOWN), 'Database schema')


class PinsTest(ChecksCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(checks, 'VERSION', '1.10.0'))
        self.alike = cell(managers=[Manager(name, '1.10.0', '1.0', 1) for name in 'ab'])
        self.mixed = cell(
            managers=[Manager('a', '1.10.0', '1.0', 1), Manager('b', '1.9.0', '1.0', 1)],
        )

    def test_none(self):
        self.check(Code.SUCCESS, checks.check_pins({}, self.alike))
        self.check(Code.SUCCESS, checks.check_pins({}, UNKNOWN))

    def test_needed_while_releases_are_mixed(self):
        self.check(Code.SUCCESS, checks.check_pins({'consoled': '1.0'}, self.mixed), 'consoled = 1.0')

    def test_to_be_removed_once_releases_are_alike(self):
        self.check(Code.WARNING, checks.check_pins({'consoled': '1.0'}, self.alike), 'Remove consoled')
        self.check(Code.WARNING, checks.check_pins({'compute': '1.0'}, self.alike), 'compute agents')

    def test_unknown_managers(self):
        for known in (UNKNOWN, cell(managers=None), cell()):
            self.check(Code.SUCCESS, checks.check_pins({'compute': '1.0'}, known), 'unknown')

    def test_an_invalid_version(self):
        self.check(Code.FAILURE, checks.check_pins({'compute': '7.7'}, self.alike), '7.7')


class LegacyTest(ChecksCase):
    def legacy(self, on, known, write_through=False):
        return checks.check_legacy(on, write_through, TTL, known)

    def used(self, last_used_at, last_expiry=None, uses=7):
        return cell(usage=[Use('memcached', uses, last_used_at)], last_expiry=last_expiry)

    def test_off_and_never_used(self):
        self.check(Code.SUCCESS, self.legacy(False, cell()), 'Off, and never used')
        self.check(Code.SUCCESS, self.legacy(False, cell(usage=None)), 'Off')

    def test_off_after_the_migration(self):
        self.check(Code.SUCCESS, self.legacy(False, self.used(after(days=-3))), '7 times', '3 days ago')

    def test_switched_off_too_early(self):
        self.check(
            Code.WARNING,
            self.legacy(False, self.used(after(minutes=-4))),
            'switch it on again until 2026-11-23 07:06:00 UTC, in 6 min',
        )

    def test_on_and_in_use(self):
        said = self.check(
            Code.WARNING,
            self.legacy(True, self.used(after(minutes=-4), after(hours=3))),
            'memcached 7 times, last at 2026-11-23 06:56:00 UTC, 4 min ago',
            'expires at 2026-11-23 10:00:00 UTC, in 3 h',
            'Leave it on at least until 2026-11-23 10:00:00 UTC, in 3 h',
        )
        self.assertNotIn('can be switched off', said)

    def test_on_and_used_recently_without_a_known_token(self):
        """A token that was never used is not known here."""
        self.check(
            Code.WARNING,
            self.legacy(True, self.used(after(minutes=-4))),
            'None of its tokens known here is still valid',
            'Leave it on at least until 2026-11-23 07:06:00 UTC, in 6 min',
        )

    def test_on_and_unused_but_a_token_is_valid(self):
        self.check(
            Code.WARNING,
            self.legacy(True, self.used(after(hours=-4), after(seconds=30))),
            'Leave it on at least until 2026-11-23 07:00:30 UTC, in 30 s',
        )

    def test_on_and_no_longer_needed(self):
        for last_used_at in (after(seconds=-TTL), after(days=-9)):
            self.check(Code.WARNING, self.legacy(True, self.used(last_used_at)), 'can be switched off now')

    def test_on_and_never_used(self):
        self.check(
            Code.WARNING,
            self.legacy(True, cell()),
            'The old service has not been used so far',
            'can be switched off now, if',
            'for longer than [consoleauth] token_ttl (10 min)',
        )

    def test_the_last_use_of_any_source_counts(self):
        known = cell(
            usage=[Use('consoleauth', 1, after(seconds=-50)), Use('memcached', 2, after(days=-1))],
        )
        self.check(
            Code.WARNING, self.legacy(True, known), 'consoleauth 1 times', 'memcached 2 times', 'in 9 min'
        )

    def test_write_through(self):
        self.check(Code.WARNING, self.legacy(True, cell(), True), 'tokens in clear text')
        self.check(Code.WARNING, self.legacy(False, cell(), True), 'never used', 'has no effect')

    def test_unknown(self):
        self.check(Code.WARNING, self.legacy(True, UNKNOWN), 'On', 'Database schema')
        self.check(Code.WARNING, self.legacy(False, UNKNOWN), 'Off', 'Database schema')
        self.check(Code.WARNING, self.legacy(True, cell(usage=None)), 'db upgrade')


class FormatDurationTest(testtools.TestCase):
    def test_units(self):
        for seconds, text in (
            (0, '0 s'),
            (99.4, '99 s'),
            (99.6, '2 min'),
            (180, '3 min'),
            (99 * 60, '99 min'),
            (3 * 3600 - 20, '3 h'),
            (86400, '24 h'),
            (47 * 3600, '47 h'),
            (48 * 3600, '2 days'),
            (30 * 86400, '30 days'),
        ):
            self.assertEqual(text, checks.format_duration(seconds))
