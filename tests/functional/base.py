# SPDX-License-Identifier: Apache-2.0
"""Base of the functional tests: real services, with a private bus and database for each test or class."""

import tempfile

import sqlalchemy as sa
import testtools

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.db import models
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures, services
from tests.unit.db.base import ADDRESS, BASE_URL, COMPUTE_HOST, a_console, a_grant, new_uuid

# What tests of all kinds use; named here for the functional tests.
__all__ = [
    'ADDRESS',
    'BASE_URL',
    'COMPUTE_HOST',
    'CellTestCase',
    'a_console',
    'a_grant',
    'new_uuid',
]


def database_url(test, engine):
    """Create an empty database and return its URL.

    :param test: a test case or a test class; the database is dropped after it
    :param engine: ``mariadb``, ``postgresql`` or ``sqlite``
    """
    if engine == 'sqlite':
        directory = tempfile.TemporaryDirectory(prefix='consoled-')
        _cleanup(test, directory.cleanup)
        return f'sqlite:///{directory.name}/cell.sqlite'
    service = services.shared({'mariadb': services.MariaDB, 'postgresql': services.PostgreSQL}[engine])
    url = service.new_database()
    _cleanup(test, service.drop_database, url)
    return url


def transport_url(test):
    """Create a virtual host on RabbitMQ and return its URL.

    :param test: a test case or a test class; the virtual host is deleted after it
    """
    broker = services.shared(services.RabbitMQ)
    url = broker.new_vhost()
    _cleanup(test, broker.delete_vhost, url)
    return url


def client_transport(test, url):
    """Return an RPC transport with consoled's options that is closed after the test."""
    transport = get_transport(test.useFixture(fixtures.Conf(transport_url=url)).conf)
    test.addCleanup(transport.cleanup)
    return transport


def none_if(error, call, *args, **kwargs):
    """Return the result of a call, or None when it raises ``error``; for conditions to wait for."""
    try:
        return call(*args, **kwargs)
    except error:
        return None


def _cleanup(test, *call):
    (test.addClassCleanup if isinstance(test, type) else test.addCleanup)(*call)


class OwnServices:
    """Mixin: a broker and a database of the class's own, for tests that kill them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.broker, cls.mariadb = services.RabbitMQ(), services.MariaDB()
        for service in (cls.broker, cls.mariadb):
            service.setUp()
            cls.addClassCleanup(service.cleanUp)

    def services(self):
        """Return the URLs of an empty virtual host and an empty database."""
        for service in (self.broker, self.mariadb):
            service.start()  # a test that failed may have left it down
        return self.broker.new_vhost(), self.mariadb.new_database()


class CellTestCase(testtools.TestCase):
    """A cell for all tests of the class: a manager in this process, over RabbitMQ.

    Each test begins with empty tables and the class's options.

    :cvar engine: the database, as for ``database_url``
    :cvar options: the manager's options, named as for ``fixtures.Conf``
    :cvar emptied: the tables to empty before each test
    """

    engine = 'mariadb'
    options: dict = {}
    emptied = (models.console_proxy, models.instances)  # the rows of other tables are deleted with theirs

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.bus = transport_url(cls)
        cls.database = database_url(cls, cls.engine)
        cls.cell = fixtures.InProcessCell(cls.bus, cls.database, **cls.options)
        cls.cell.setUp()
        cls.addClassCleanup(cls.cell.cleanUp)
        cls.api = cls.cell.api
        # Someone has to listen for cuts, as in any real cell: without a listener each cut is retried
        # for a second.
        bystander = fixtures.FakeProxy(cls.cell.transport, cls.api)
        bystander.setUp()
        cls.addClassCleanup(bystander.cleanUp)

    def setUp(self):
        super().setUp()
        for table in self.emptied:
            self.cell.db.transaction(lambda conn, table=table: conn.execute(sa.delete(table)))
        self.context = RequestContext(user_id='user-1', project_id='project-1')
        self.instance = new_uuid()

    def set(self, **options):
        """Set options for this test, ``group__option=value``."""
        for name, value in options.items():
            group, _, option = name.rpartition('__')
            self.addCleanup(self._restore, group, option, self.cell.conf[group][option])
            self.cell.conf.set_override(option, value, group=group)

    def _restore(self, group, option, value):
        self.cell.conf.set_override(option, value, group=group)

    def assert_refused(self, code, call, *args, **kwargs):
        """Assert that a call is refused with this error code, and return the error."""
        error = self.assertRaises(exception.ConsoledException, call, *args, **kwargs)
        self.assertEqual(code, error.code)
        return error

    def authorize(self, port=10000, ttl=None, **changes):
        return self.api.authorize(self.context, a_grant(self.instance, port, **changes), ttl)

    def define(self, *ports, compute_host=COMPUTE_HOST, instance=None):
        """Define serial consoles, and wait until the manager has processed the cast."""
        instance = instance or self.instance
        consoles = [a_console(instance, port, compute_host=compute_host) for port in ports]
        self.api.define_consoles(
            self.context, instance, compute_host, objects.ConsoleConnectionList(objects=consoles)
        )
        fixtures.wait_until(lambda: self.ports(instance) == sorted(ports), what='the definition')

    def ports(self, instance=None):
        """Return the ports of the instance's consoles in the database."""
        query = 'SELECT port FROM console_connection WHERE instance_uuid = :uuid ORDER BY port'
        return [row[0] for row in self.rows(query, uuid=instance or self.instance)]

    def rows(self, query, **parameters):
        return self.cell.db.single(lambda conn: conn.execute(sa.text(query), parameters).all())

    def count(self, table):
        return self.rows(f'SELECT COUNT(*) FROM {table}')[0][0]

    def proxy(self, name=None, receive_cuts=False):
        return self.useFixture(
            fixtures.FakeProxy(self.cell.transport, self.api, name, receive_cuts=receive_cuts)
        )

    def agent(self, compute_host=COMPUTE_HOST):
        return self.useFixture(fixtures.FakeComputeAgent(self.cell.transport, compute_host))
