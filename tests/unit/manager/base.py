# SPDX-License-Identifier: Apache-2.0
"""A manager on an SQLite file, with agents and proxies in memory, and a client that calls it directly."""

import functools
import json
import os
import pathlib
import tempfile

import sqlalchemy as sa
import testtools
from oslo_messaging.rpc import dispatcher

from consoled import objects
from consoled.context import RequestContext
from consoled.db import migration
from consoled.db.engine import Database
from consoled.manager.manager import ConsoleAuthManager
from consoled.manager.metrics import Metrics
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.replies import Closing
from consoled.rpc.serializer import Serializer
from consoled.testing import fixtures
from tests.functional import base

COMPUTE_HOST = base.COMPUTE_HOST


def _directory():
    memory = '/dev/shm'  # where it exists, writes do not wait for a disk
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


@functools.cache
def _migrated():
    """Return the content of a database file at the newest revision. Migrating takes most of a test's time."""
    with _directory() as directory:
        path = pathlib.Path(directory, 'cell.db')
        db = Database(f'sqlite:///{path}')
        migration.upgrade(db)
        db.single(lambda conn: conn.exec_driver_sql('PRAGMA wal_checkpoint(TRUNCATE)').all())
        db.dispose()
        return path.read_bytes()


class Agents:
    """Compute agents. ``answer`` is returned or raised by ``check_console``; ``asked`` has the consoles."""

    def __init__(self):
        self.answer = True
        self.asked = []

    def check_console(self, context, console, timeout):
        self.asked.append((console.instance_uuid, console.port))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Proxies:
    """Fake of the proxies of a cell.

    :ivar cuts: (session id, reason) of each cut that was received
    :ivar on_cut: called with the session ids of each cast
    """

    def __init__(self):
        self.cuts = []
        self.on_cut = lambda session_ids: None

    def cut_sessions(self, context, session_ids, reason):
        self.on_cut(session_ids)
        self.cuts += [(session_id, str(reason)) for session_id in session_ids]


class DirectAPI(ConsoleAuthAPI):
    """The client of the contract on an endpoint in this process. Values take their form on the wire."""

    def __init__(self, endpoint):
        self._endpoint = endpoint
        self._serializer = Serializer()

    def _over_the_wire(self, context, value):
        primitive = self._serializer.serialize_entity(context, value)
        return self._serializer.deserialize_entity(context, json.loads(json.dumps(primitive)))

    def _call(self, context, method, target=None, **values):
        values = {name: self._over_the_wire(context, value) for name, value in values.items()}
        try:
            result = getattr(self._endpoint, method)(context, **values)
        except dispatcher.ExpectedException as expected:
            raise expected.exc_info[1] from None
        return self._over_the_wire(context, result)

    _cast = _call


class ManagerCase(testtools.TestCase):
    """A manager for each test.

    :cvar options: overrides, as ``fixtures.Conf`` takes them
    """

    options: dict = {}

    def setUp(self):
        super().setUp()
        directory = _directory()
        self.addCleanup(directory.cleanup)
        path = pathlib.Path(directory.name, 'cell.db')
        path.write_bytes(_migrated())
        self.config = self.useFixture(fixtures.Conf(**self.options))
        self.conf = self.config.conf
        self.db = Database(f'sqlite:///{path}')
        self.addCleanup(self.db.dispose)
        self.agents, self.proxies, self.sources = Agents(), Proxies(), []
        self.metrics = Metrics('cell1')
        self.endpoint = ConsoleAuthManager(
            self.conf, self.db, self.agents, self.proxies, self.metrics, self.sources
        )
        self.api = DirectAPI(self.endpoint)
        self.context = RequestContext(user_id='user-1', project_id='project-1')
        self.instance = base.new_uuid()

    def authorize(self, port=10000, ttl=None, **changes):
        instance = changes.pop('instance', self.instance)
        return self.api.authorize(self.context, base.a_grant(instance, port, **changes), ttl)

    def define(self, *ports, compute_host=COMPUTE_HOST, console_type='serial'):
        consoles = [
            base.a_console(self.instance, port, console_type, compute_host=compute_host) for port in ports
        ]
        self.api.define_consoles(
            self.context, self.instance, compute_host, objects.ConsoleConnectionList(objects=consoles)
        )

    def proxy(self, name='proxy-1'):
        """Register a proxy; returns its id."""
        proxy_id = base.new_uuid()
        self.api.register_proxy(self.context, proxy_id, name)
        return proxy_id

    def open(self, proxy_id, token, session_id=None, serial_port=None):
        return self.api.open_session(
            self.context, token, session_id or base.new_uuid(), proxy_id, '192.0.2.1', serial_port
        )

    def close(self, session, reason='user_left'):
        self.api.close_session(self.context, Closing(session.id, reason))

    def sessions(self, **filters):
        """The ids of the live sessions."""
        return {each.id for each in self.api.list_sessions(self.context, **filters).objects}

    def count(self, table):
        """The number of rows of a table."""
        counting = sa.select(sa.func.count()).select_from(table)
        return self.db.single(lambda conn: conn.execute(counting).scalar())

    def counted(self, name, **labels):
        """The value of a metric of this manager."""
        return self.metrics.registry.get_sample_value(name, {'cell': 'cell1', **labels}) or 0
