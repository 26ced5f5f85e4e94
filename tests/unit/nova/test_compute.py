# SPDX-License-Identifier: Apache-2.0
"""What is asked of nova-compute, and what its answers mean."""

import logging

import fixtures as fixtures_library
import oslo_messaging
import testtools

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.nova.compute import NovaComputeAPI
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures
from tests.functional.base import a_console, new_uuid

CONTEXT = RequestContext(user_id='user-1')


class FakeCompute:
    """Endpoint of nova-compute. ``answer`` is returned or raised."""

    target = oslo_messaging.Target(version='5.0')

    def __init__(self):
        self.answer = True
        self.asked = []

    def validate_console_port(self, ctxt, instance, port, console_type):
        self.asked.append((ctxt, instance, port, console_type))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class ValidatePortTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        conf = self.useFixture(fixtures.Conf(transport_url='fake:')).conf
        transport = get_transport(conf)
        self.addCleanup(transport.cleanup)
        self.compute = FakeCompute()
        target = oslo_messaging.Target(exchange='nova', topic='compute', server='node-1')
        server = oslo_messaging.get_rpc_server(transport, target, [self.compute], executor='threading')
        server.start()
        self.addCleanup(server.wait)
        self.addCleanup(server.stop)
        self.api = NovaComputeAPI.from_conf(conf, transport)
        self.logged = self.useFixture(fixtures_library.FakeLogger('consoled', level=logging.ERROR))
        self.instance = new_uuid()

    def ask(self, compute_host='node-1', timeout=5.0):
        console: objects.ConsoleConnection = a_console(self.instance, 5900, 'novnc')
        console.compute_host = compute_host
        return self.api.validate_console_port(CONTEXT, console, 42, timeout)

    def test_the_question(self):
        self.assertIs(True, self.ask())
        [(context, instance, port, console_type)] = self.compute.asked
        self.assertEqual(('5900', 'novnc'), (port, console_type))
        self.assertEqual({'id': 42, 'uuid': self.instance}, instance['nova_object.data'])
        self.assertEqual(('Instance', '2.0'), (instance['nova_object.name'], instance['nova_object.version']))
        self.assertEqual((True, 'no', []), (context['is_admin'], context['read_deleted'], context['roles']))
        self.assertEqual(CONTEXT.request_id, context['request_id'])
        self.assertNotIn('user_id', context)

    def test_answers(self):
        self.compute.answer = False
        self.assertIs(False, self.ask())
        for answer in (None, 'true', 1, {}):
            self.compute.answer = answer
            self.assertRaises(exception.InternalError, self.ask)

    def test_errors_of_nova_by_their_names(self):
        for name, error in (
            ('InstanceNotFound', exception.ConsoleGone),
            ('ConsoleTypeUnavailable', exception.ConsoleGone),
            ('HypervisorUnavailable', exception.HypervisorUnreachable),
            ('LibvirtError', exception.InternalError),
        ):
            self.compute.answer = type(name, (Exception,), {})('canary')
            raised = self.assertRaises(error, self.ask)
            self.assertNotIn('canary', str(raised) + self.logged.output)

    def test_nobody_answers(self):
        self.assertRaises(exception.ComputeUnreachable, self.ask, compute_host='node-2', timeout=0.01)
