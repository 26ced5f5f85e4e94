# SPDX-License-Identifier: Apache-2.0
"""Runs tests of ``consoled.db`` on the real databases."""

from tests.functional import base
from tests.unit.db.base import DatabaseTestCase


class MariaDBTestCase(DatabaseTestCase):
    @classmethod
    def new_url(cls):
        return base.database_url(cls, 'mariadb')


class PostgreSQLTestCase(DatabaseTestCase):
    @classmethod
    def new_url(cls):
        return base.database_url(cls, 'postgresql')


class SQLiteTestCase(DatabaseTestCase):
    """On a disk, as in a cell."""

    @classmethod
    def new_url(cls):
        return base.database_url(cls, 'sqlite')
