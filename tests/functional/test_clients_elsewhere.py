# SPDX-License-Identifier: Apache-2.0
"""The clients in another service, with its configuration, its transport and its contexts."""

import oslo_messaging
from oslo_config import cfg
from oslo_context import context as oslo_context

from consoled import exception
from consoled.conf import messaging
from consoled.rpc import versions
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from tests.functional import base

EXCHANGE = 'another-service'
UNKNOWN_TOKEN = 'A' * 43


class ClientsElsewhereTest(base.CellTestCase):
    engine = 'sqlite'

    def setUp(self):
        super().setUp()
        # nothing of consoled is registered on it
        self.conf = cfg.ConfigOpts()
        self.conf([], default_config_files=[], default_config_dirs=[])
        # what oslo.messaging registers when it makes a transport, with another service's value
        oslo_messaging.TransportURL.parse(self.conf, self.bus)
        self.conf.register_opt(
            next(opt for opt in oslo_messaging.transport._transport_opts if opt.name == 'control_exchange')
        )
        self.conf.set_override('control_exchange', EXCHANGE)

    def transport_of_the_service(self, *args):
        transport = oslo_messaging.get_rpc_transport(self.conf, self.bus, *args)
        self.addCleanup(transport.cleanup)
        return transport

    def assert_answered(self, transport):
        """Assert that calls reach the manager, and that its errors arrive as themselves."""
        api = ConsoleAuthAPI(transport)
        token = self.authorize().token
        self.assertEqual(self.instance, api.validate(self.context, token).instance_uuid)
        self.assertRaises(exception.InvalidToken, api.validate, self.context, UNKNOWN_TOKEN)

    def test_configuration_of_the_service(self):
        transport = get_transport(self.conf, self.bus)
        self.addCleanup(transport.cleanup)
        before = dict(self.conf.oslo_messaging_rabbit)
        self.assert_answered(transport)
        self.assertEqual(EXCHANGE, self.conf.control_exchange)
        self.assertEqual(before, dict(self.conf.oslo_messaging_rabbit))
        other = get_transport(self.conf, self.bus)  # again, with the same options
        self.addCleanup(other.cleanup)
        self.assert_answered(other)

    def test_transport_of_the_service(self):
        for modules in (None, ['another.exception'], ('another.exception',)):
            self.assert_answered(self.transport_of_the_service(modules))

    def test_transport_that_the_service_has_used(self):
        transport = self.transport_of_the_service(['another.exception'])
        target = oslo_messaging.Target(exchange=messaging.EXCHANGE, topic=versions.TOPIC, version='1.0')
        messaging.register_unlisted_opts(self.conf)
        own = oslo_messaging.get_rpc_client(transport, target, timeout=30)
        self.assertRaises(oslo_messaging.RemoteError, own.call, {}, 'validate', token=UNKNOWN_TOKEN)
        self.assert_answered(transport)

    def test_context_of_the_service(self):
        context = oslo_context.RequestContext(user_id='alice', project_id='demo', request_id='req-elsewhere')
        grant = self.api.authorize(context, base.a_grant(self.instance, 5900, user_id=None, project_id=None))
        self.assertEqual(('alice', 'demo'), (grant.user_id, grant.project_id))
        rows = self.rows('SELECT request_id FROM console_auth_token')
        self.assertEqual([('req-elsewhere',)], [tuple(row) for row in rows])
