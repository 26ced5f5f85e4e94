# SPDX-License-Identifier: Apache-2.0
"""Callers of the old service: compute hosts and proxies that speak version 2 of its contract."""

import contextlib
import uuid

import oslo_messaging

from consoled import objects
from consoled.db import legacy, models
from consoled.legacy import setup
from consoled.testing import fixtures
from consoled.testing.sources import MemoryTokenSource
from tests.functional import base

# The callers' contexts contain credentials of users, which must not be logged.
CREDENTIAL = 'gAAAAA-credential-of-the-user-that-is-not-for-us'


class _Serializer(oslo_messaging.NoOpSerializer):
    def serialize_context(self, context):
        return dict(context)

    def deserialize_context(self, context):
        return context


def a_context():
    """Return the context of a call, as the old services send it."""
    return {
        'user': 'user-1',
        'user_id': 'user-1',
        'user_name': 'alice',
        'user_domain': 'default',
        'user_identity': 'user-1 project-1 - default default',
        'tenant': 'project-1',
        'project_id': 'project-1',
        'project_name': 'demo',
        'project_domain': 'default',
        'domain': None,
        'roles': ['member', 'reader'],
        'is_admin': False,
        'is_admin_project': True,
        'read_only': False,
        'read_deleted': 'no',
        'show_deleted': False,
        'auth_token': CREDENTIAL,
        'service_catalog': [{'type': 'volumev3', 'endpoints': [{'publicURL': 'http://192.0.2.99:8776'}]}],
        'request_id': f'req-{uuid.uuid4()}',
        'global_request_id': None,
        'resource_uuid': None,
        'remote_address': '192.0.2.77',
        'timestamp': '2026-11-23T00:00:00.000000',
        'quota_class': None,
        'instance_lock_checked': False,
    }


class OldCallers(fixtures.fixtures.Fixture):
    """Calls the old service.

    :param version: of the contract, as these callers speak it
    """

    def __init__(self, transport_url, version='2.1', exchange='nova', timeout=30):
        super().__init__()
        self._transport_url = transport_url
        self._version = version
        self._exchange = exchange
        self._timeout = timeout

    def _setUp(self):  # noqa: N802 - named by the fixtures library
        conf = self.useFixture(fixtures.Conf(transport_url=self._transport_url)).conf
        transport = oslo_messaging.get_rpc_transport(conf, allowed_remote_exmods=['nova.exception'])
        self.addCleanup(transport.cleanup)
        self.client = oslo_messaging.get_rpc_client(
            transport,
            oslo_messaging.Target(exchange=self._exchange, topic='consoleauth', version='2.0'),
            serializer=_Serializer(),
            timeout=self._timeout,
        )

    def authorize(self, instance_uuid, port, console_type='novnc', host='192.0.2.10', path=None, url=''):
        """Authorize a console as a compute host does, and return the token, which it generates itself.

        :param url: of the page, with the token in it; None: without a URL
        """
        token = str(uuid.uuid4())
        arguments = {
            'token': token,
            'console_type': console_type,
            'host': host,
            'port': port,
            'internal_access_path': path,
            'instance_uuid': instance_uuid,
            'access_url': f'https://console.example.org/vnc_lite.html?token={token}' if url == '' else url,
        }
        if self._version == '2.0':
            del arguments['access_url']
        self.call('authorize_console', **arguments)
        return token

    def check_token(self, token):
        """Check a user's token as a proxy does."""
        return self.call('check_token', token=token)

    def delete_tokens_for_instance(self, instance_uuid):
        """Delete the tokens of a guest that is gone, as a compute host does."""
        self._prepared().cast(a_context(), 'delete_tokens_for_instance', instance_uuid=instance_uuid)

    def call(self, method, **arguments):
        return self._prepared().call(a_context(), method, **arguments)

    def cast(self, method, **arguments):
        self._prepared().cast(a_context(), method, **arguments)

    def _prepared(self):
        return self.client.prepare(version=self._version)


class ConsoleauthCase(base.CellTestCase):
    """A cell with a token source (``source``) that answers old callers too.

    ``old`` speaks version 2.1, ``older`` 2.0.
    """

    emptied = (*base.CellTestCase.emptied, models.legacy_use, models.legacy_void)

    @classmethod
    def setUpClass(cls):
        cls.source = MemoryTokenSource()
        cls.options = {'sources': [cls.source]}
        super().setUpClass()
        cls.exit_stack = contextlib.ExitStack()
        setup.start_server(cls.cell.conf, cls.cell.transport, cls.cell.endpoint, cls.exit_stack)
        cls.addClassCleanup(cls.exit_stack.close)
        cls.old = OldCallers(cls.bus)
        cls.older = OldCallers(cls.bus, version='2.0')
        cls.bystander = fixtures.FakeProxy(cls.cell.transport, cls.api)
        cls.compute = fixtures.FakeComputeAgent(cls.cell.transport, base.COMPUTE_HOST)
        for fixture in (cls.old, cls.older, cls.bystander, cls.compute):
            fixture.setUp()
            cls.addClassCleanup(fixture.cleanUp)

    def setUp(self):
        super().setUp()
        self.source.__init__()
        self.compute.answer = lambda asked: True
        self.compute.asked.clear()
        self.cuts = self.bystander.cuts  # every proxy receives all of them
        while not self.cuts.empty():
            self.cuts.get()

    def uses(self):
        return {use.source: use.uses for use in legacy.usage(self.cell.db)}

    def assert_remote_error(self, exc_type, call, *args, **kwargs):
        """Assert that a call fails with an error as old callers see it: they know none of our classes."""
        error = self.assertRaises(oslo_messaging.RemoteError, call, *args, **kwargs)
        self.assertEqual(exc_type, error.exc_type)
        return error

    def define_console(self, port=5900, compute_host=base.COMPUTE_HOST, **options):
        console = base.a_console(self.instance, port, 'novnc', compute_host=compute_host)
        console.options = options
        found = objects.ConsoleConnectionList(objects=[console])
        self.api.define_consoles(self.context, self.instance, compute_host, found, wait=True)
