# SPDX-License-Identifier: Apache-2.0
"""The unit tests of ``consoled.db`` on the real databases."""

from tests.functional.db.base import MariaDBTestCase, PostgreSQLTestCase
from tests.unit.db import (
    test_claims,
    test_cleanup,
    test_clock,
    test_consoles,
    test_contests,
    test_engine,
    test_hosts,
    test_legacy,
    test_proxies,
    test_revocation,
    test_sessions,
    test_tokens,
    test_watch,
)


class _Sessions(test_claims.ClaimsTests, test_proxies.ProxiesTests, test_sessions.SessionsTests):
    pass


class _Tokens(test_tokens.StoreTests, test_tokens.NextFreeTests):
    pass


class _Legacy(test_legacy.AdoptTests, test_legacy.RevocationTests, test_legacy.UseTests):
    pass


class _Instances(test_consoles.ConsolesTests, test_cleanup.CleanupTests, test_revocation.RevocationTests):
    pass


class _Database(test_clock.ClockTests, test_engine.DatabaseTests):
    pass


class MariaDBSessionsTest(_Sessions, MariaDBTestCase):
    pass


class MariaDBTokensTest(_Tokens, MariaDBTestCase):
    pass


class MariaDBLegacyTest(_Legacy, MariaDBTestCase):
    pass


class MariaDBInstancesTest(_Instances, MariaDBTestCase):
    pass


class MariaDBContestsTest(test_contests.ContestsTests, MariaDBTestCase):
    pass


class MariaDBHostsTest(test_hosts.HostsTests, MariaDBTestCase):
    pass


class MariaDBWatchTest(test_watch.WatchTests, MariaDBTestCase):
    pass


class MariaDBDatabaseTest(_Database, MariaDBTestCase):
    pass


class PostgreSQLSessionsTest(_Sessions, PostgreSQLTestCase):
    pass


class PostgreSQLTokensTest(_Tokens, PostgreSQLTestCase):
    pass


class PostgreSQLLegacyTest(_Legacy, PostgreSQLTestCase):
    pass


class PostgreSQLInstancesTest(_Instances, PostgreSQLTestCase):
    pass


class PostgreSQLContestsTest(test_contests.ContestsTests, PostgreSQLTestCase):
    pass


class PostgreSQLHostsTest(test_hosts.HostsTests, PostgreSQLTestCase):
    pass


class PostgreSQLWatchTest(test_watch.WatchTests, PostgreSQLTestCase):
    pass


class PostgreSQLDatabaseTest(_Database, PostgreSQLTestCase):
    pass
