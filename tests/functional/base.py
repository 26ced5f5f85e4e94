# SPDX-License-Identifier: Apache-2.0
"""What the functional tests share: the real services, one test's own bus and databases."""

import tempfile
import uuid

import sqlalchemy as sa
import testtools

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.db import models
from consoled.testing import fixtures, services

BASE_URL = 'https://console.example.org/console.html'
COMPUTE_HOST = 'node-1'
ADDRESS = '192.0.2.10'  # RFC 5737


def database_url(test, engine):
    """The URL of an empty database of the test's own: engine is mariadb, postgresql or sqlite.

    :param test: a test case or a test class; the database goes with it
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
    """The URL of a virtual host of the test's (or class's) own on RabbitMQ."""
    broker = services.shared(services.RabbitMQ)
    url = broker.new_vhost()
    _cleanup(test, broker.delete_vhost, url)
    return url


def _cleanup(test, *call):
    (test.addClassCleanup if isinstance(test, type) else test.addCleanup)(*call)


def a_console(instance_uuid, port, console_type='serial', host=ADDRESS, compute_host=COMPUTE_HOST):
    return objects.ConsoleConnection(
        instance_uuid=instance_uuid,
        console_type=console_type,
        host=host,
        port=port,
        compute_host=compute_host,
        access_url_base=BASE_URL,
        options={},
    )


def a_grant(instance_uuid, port, console_type='serial', **changes):
    values = {
        'instance_uuid': instance_uuid,
        'console_type': console_type,
        'host': None if port is None else ADDRESS,
        'port': port,
        'compute_host': COMPUTE_HOST,
        'access_url_base': BASE_URL,
        'options': {},
        'user_id': 'user-1',
        'project_id': 'project-1',
    }
    return objects.ConsoleAuthToken(**(values | changes))


def new_uuid():
    return str(uuid.uuid4())


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
    """A cell with its manager in this process, over RabbitMQ, for all tests of the class.

    Each test begins with empty tables and the class's options.
    """

    engine = 'mariadb'
    options: dict = {}
    emptied = (models.console_proxy, models.instances)  # the other tables go with them

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.bus = transport_url(cls)
        cls.database = database_url(cls, cls.engine)
        cls.cell = fixtures.Cell(cls.bus, cls.database, **cls.options)
        cls.cell.setUp()
        cls.addClassCleanup(cls.cell.cleanUp)
        cls.api = cls.cell.api
        # somebody listens for cuts, as in any cell: to nobody, each would be tried again for a second
        bystander = fixtures.Proxy(cls.cell.transport, cls.api)
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
        """The call is refused with that code; returns the error."""
        error = self.assertRaises(exception.ConsoledException, call, *args, **kwargs)
        self.assertEqual(code, error.code)
        return error

    def authorize(self, port=10000, ttl=None, **changes):
        return self.api.authorize(self.context, a_grant(self.instance, port, **changes), ttl)

    def define(self, *ports, compute_host=COMPUTE_HOST, instance=None):
        """Define serial consoles, and wait until the cast has been carried out."""
        instance = instance or self.instance
        consoles = [a_console(instance, port, compute_host=compute_host) for port in ports]
        self.api.define_consoles(
            self.context, instance, compute_host, objects.ConsoleConnectionList(objects=consoles)
        )
        fixtures.wait_until(lambda: self.ports(instance) == sorted(ports), what='the definition')

    def ports(self, instance=None):
        """The ports of the instance in the database."""
        query = 'SELECT port FROM console_connection WHERE instance_uuid = :uuid ORDER BY port'
        return [row[0] for row in self.rows(query, uuid=instance or self.instance)]

    def rows(self, query, **parameters):
        return self.cell.db.single(lambda conn: conn.execute(sa.text(query), parameters).all())

    def count(self, table):
        return self.rows(f'SELECT COUNT(*) FROM {table}')[0][0]

    def proxy(self, name=None, deaf=True):
        return self.useFixture(fixtures.Proxy(self.cell.transport, self.api, name, deaf=deaf))

    def agent(self, compute_host=COMPUTE_HOST):
        return self.useFixture(fixtures.ComputeAgent(self.cell.transport, compute_host))
