# SPDX-License-Identifier: Apache-2.0
"""What the functional tests share: the real services, one test's own bus and databases."""

import uuid

import sqlalchemy as sa
import testtools

from consoled import objects
from consoled.context import RequestContext
from consoled.testing import fixtures, services

BASE_URL = 'https://console.example.org/console.html'
COMPUTE_HOST = 'node-1'
ADDRESS = '192.0.2.10'  # RFC 5737


def database_url(test, engine):
    """The URL of an empty database of the test's own: engine is mariadb, postgresql or sqlite."""
    if engine == 'sqlite':
        return f'sqlite:///{test.useFixture(fixtures.fixtures.TempDir()).path}/cell.sqlite'
    service = services.shared({'mariadb': services.MariaDB, 'postgresql': services.PostgreSQL}[engine])
    url = service.new_database()
    test.addCleanup(service.drop_database, url)
    return url


def transport_url(test):
    """The URL of a virtual host of the test's own on RabbitMQ."""
    broker = services.shared(services.RabbitMQ)
    url = broker.new_vhost()
    test.addCleanup(broker.delete_vhost, url)
    return url


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


class CellTestCase(testtools.TestCase):
    """A cell with its manager in this process, over RabbitMQ on MariaDB."""

    engine = 'mariadb'
    options: dict = {}

    def setUp(self):
        super().setUp()
        self.bus = transport_url(self)
        self.database = database_url(self, self.engine)
        self.cell = self.useFixture(fixtures.Cell(self.bus, self.database, **self.options))
        self.api = self.cell.api
        self.context = RequestContext(user_id='user-1', project_id='project-1')
        self.instance = new_uuid()

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

    def proxy(self, name=None):
        return self.useFixture(fixtures.Proxy(self.cell.transport, self.api, name))

    def agent(self, compute_host=COMPUTE_HOST):
        return self.useFixture(fixtures.ComputeAgent(self.cell.transport, compute_host))
