# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of ``consoled.db``: a database for each test, and shortcuts to fill it.

The tests of a module are a mixin beside a class that runs them on SQLite; functional tests run the same
mixins on the other databases.
"""

import os
import tempfile
import uuid
import zlib

import sqlalchemy as sa
import testtools

from consoled import objects
from consoled.db import claims, clock, consoles, migration, models, proxies, sessions, tokens
from consoled.db.engine import Database

BASE_URL = 'https://console.example.org/console.html'
COMPUTE_HOST = 'node-1'
ADDRESS = '192.0.2.10'  # RFC 5737


def new_uuid():
    return str(uuid.uuid4())


def address_of(compute_host):
    """Return an address of the compute host's own."""
    if compute_host in (COMPUTE_HOST, models.UNKNOWN_HOST):
        return ADDRESS
    return f'198.51.100.{zlib.crc32(compute_host.encode()) % 254 + 1}'


def a_console(instance_uuid, port, console_type='serial', host=None, compute_host=COMPUTE_HOST):
    return objects.ConsoleConnection(
        instance_uuid=instance_uuid,
        console_type=console_type,
        host=host or address_of(compute_host),
        port=port,
        compute_host=compute_host,
        access_url_base=BASE_URL,
        options={},
    )


def a_grant(instance_uuid, port, console_type='serial', **changes):
    values = {
        'instance_uuid': instance_uuid,
        'console_type': console_type,
        'host': None if port is None else address_of(changes.get('compute_host', COMPUTE_HOST)),
        'port': port,
        'compute_host': COMPUTE_HOST,
        'access_url_base': BASE_URL,
        'options': {},
        'user_id': 'user-1',
        'project_id': 'project-1',
    }
    return objects.ConsoleAuthToken(**(values | changes))


def new_file(test_class):
    """Return the path of a file that does not exist yet, in a directory that goes with the test class."""
    memory = '/dev/shm'  # its writes are not synchronized with a disk, which takes most of the time elsewhere
    directory = tempfile.TemporaryDirectory(
        prefix='consoled-', dir=memory if os.access(memory, os.W_OK) else None
    )
    test_class.addClassCleanup(directory.cleanup)
    return f'{directory.name}/cell.sqlite'


class DatabaseTestCase(testtools.TestCase):
    """A database of the class's own, which is empty when a test begins, and shortcuts to fill it.

    :cvar db: the database
    :ivar instance: the instance that the shortcuts use
    """

    emptied = (models.console_proxy, models.instances, models.legacy_use, models.legacy_void)
    emptied += (models.console_manager, models.session_watch)  # the other tables are emptied by cascades

    @classmethod
    def new_url(cls):
        """Return the URL of an empty database, without tables, that goes with the class."""
        return f'sqlite:///{new_file(cls)}'

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = Database(cls.new_url(), pool_size=20)
        cls.addClassCleanup(cls.db.dispose)
        migration.upgrade(cls.db)

    def setUp(self):
        super().setUp()
        for table in self.emptied:
            self.execute(sa.delete(table))
        self.instance = new_uuid()
        self._tokens = 0

    def execute(self, statement):
        return self.db.transaction(lambda conn: conn.execute(statement).rowcount)

    def rows(self, *columns, where=()):
        statement = sa.select(*columns).where(*where)
        return [tuple(row) for row in self.db.single(lambda conn: conn.execute(statement).all())]

    def count(self, table, *where):
        statement = sa.select(sa.func.count()).select_from(table).where(*where)
        return self.db.single(lambda conn: conn.execute(statement).scalar())

    def age(self, column, seconds, *where):
        """Set a moment in the matching rows to so many seconds ago."""
        statement = sa.update(column.table).where(*where)
        self.execute(statement.values({column.name: clock.utc_after(-seconds)}))

    def ago(self, moment):
        """Return how many seconds ago a moment was, by the database's clock."""
        return (clock.now(self.db) - moment).total_seconds()

    def store(self, port=10000, ttl=600, **changes):
        """Store a token; return its hash."""
        self._tokens += 1
        token_hash = f'{self._tokens:064x}'
        tokens.store(self.db, token_hash, a_grant(self.instance, port, **changes), ttl, None)
        return token_hash

    def is_valid(self, token_hash):
        return tokens.validate(self.db, token_hash, single_use=False) is not None

    def define(self, *ports, compute_host=COMPUTE_HOST, **options):
        """Define serial consoles of the instance."""
        wanted = [a_console(self.instance, port, compute_host=compute_host) for port in ports]
        for console in wanted:
            console.options = options
        return consoles.define(self.db, self.instance, compute_host, wanted)

    def ports(self):
        return sorted(
            port
            for (port,) in self.rows(
                models.console_connection.c.port,
                where=[models.console_connection.c.instance_uuid == self.instance],
            )
        )

    def proxy(self, lease=600):
        proxy_id = new_uuid()
        proxies.register(self.db, proxy_id, proxy_id, lease)
        return proxy_id

    def end_lease(self, proxy_id):
        self.age(models.console_proxy.c.lease_expires, 1, models.console_proxy.c.id == proxy_id)

    def request(self, token_hash, proxy_id, session_id=None, client_address=None):
        return sessions.find_for_open(self.db, token_hash, session_id or new_uuid(), proxy_id, client_address)

    def claim(self, request, *, single_use=False, ends_with_token=False, watched=False, **limits):
        wanted = claims.Limits(**({'console': 0} | limits))
        return claims.claim(
            self.db,
            request,
            wanted,
            single_use=single_use,
            ends_with_token=ends_with_token,
            watched=watched,
        )

    def open(self, token_hash, proxy_id, limit=0):
        return self.claim(self.request(token_hash, proxy_id), console=limit)

    def cut_reason(self, session_id):
        ((reason,),) = self.rows(
            models.console_session.c.cut_reason, where=[models.console_session.c.id == session_id]
        )
        return reason
