# SPDX-License-Identifier: Apache-2.0
"""The compute agent's endpoint, with the demo's guests and a manager that records its calls."""

import dataclasses
import uuid

import oslo_messaging
import testtools
from oslo_messaging.rpc import dispatcher

from consoled import exception, objects
from consoled.compute import endpoint
from consoled.compute.drivers import demo
from consoled.context import RequestContext
from consoled.rpc import versions

HOST = 'compute-9'
SCREEN, PORTS = demo.DESKTOP, demo.ROUTER


class RecordingManager:
    def __init__(self):
        self.calls = []
        self.refusal = None

    def authorize(self, context, grant, ttl=None):
        self.calls.append((context, grant, ttl))
        if self.refusal is not None:
            raise self.refusal
        granted = grant.obj_clone()
        granted.token = 't' * 43
        return granted


class EndpointCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.manager = RecordingManager()
        self.context = RequestContext(user_id='u', project_id='p')
        self.driver = demo.DemoDriver(HOST)
        self.agent = endpoint.ComputeConsoleEndpoint(self.driver, self.manager)

    def assert_refused(self, error, method, **values):
        """The call ends in that error, as oslo.messaging sends it to the caller."""
        raised = self.assertRaises(dispatcher.ExpectedException, method, self.context, **values)
        self.assertIsInstance(raised.exc_info[1], error)
        return raised.exc_info[1]


class GetConsoleTest(EndpointCase):
    def get(self, guest, console_type):
        return self.agent.get_console(self.context, instance_uuid=guest.uuid, console_type=console_type)

    def test_the_only_console_is_authorized_by_host_and_port(self):
        answer = self.get(SCREEN, 'novnc')
        self.assertEqual('t' * 43, answer.token)
        ((context, grant, ttl),) = self.manager.calls
        self.assertIs(self.context, context)
        self.assertIsNone(ttl)
        (console,) = self.driver.list_consoles(SCREEN.uuid)
        for name in objects.ConsoleConnection.fields:
            self.assertEqual(getattr(console, name), getattr(grant, name), name)

    def test_the_manager_chooses_among_several_consoles(self):
        self.get(PORTS, 'serial')
        ((_, grant, _),) = self.manager.calls
        grant.obj_set_defaults()
        self.assertEqual(
            (PORTS.uuid, 'serial', HOST, None, None),
            (grant.instance_uuid, grant.console_type, grant.compute_host, grant.host, grant.port),
        )

    def test_user_and_project_are_left_to_the_context(self):
        self.get(SCREEN, 'novnc')
        ((_, grant, _),) = self.manager.calls
        grant.obj_set_defaults()
        self.assertEqual((None, None), (grant.user_id, grant.project_id))  # the manager takes the context's

    def test_an_instance_that_is_not_on_this_host(self):
        elsewhere = str(uuid.uuid4())
        self.assert_refused(
            exception.InstanceNotFound,
            self.agent.get_console,
            instance_uuid=elsewhere,
            console_type='novnc',
        )
        self.assertEqual([], self.manager.calls)

    def test_an_instance_without_a_console_of_the_type(self):
        error = self.assert_refused(
            exception.ConsoleTypeUnavailable,
            self.agent.get_console,
            instance_uuid=SCREEN.uuid,
            console_type='serial',
        )
        self.assertIn('no serial console', str(error))
        self.assertEqual([], self.manager.calls)

    def test_an_instance_that_does_not_run(self):
        self.driver.put(dataclasses.replace(SCREEN, running=False))
        self.assert_refused(
            exception.InstanceNotReady,
            self.agent.get_console,
            instance_uuid=SCREEN.uuid,
            console_type='novnc',
        )

    def test_the_refusal_of_the_manager_is_passed_on(self):
        self.manager.refusal = exception.ConsolePortsExhausted(
            instance_uuid=PORTS.uuid, console_type='serial'
        )
        self.assertIs(
            self.manager.refusal,
            self.assert_refused(
                exception.ConsolePortsExhausted,
                self.agent.get_console,
                instance_uuid=PORTS.uuid,
                console_type='serial',
            ),
        )

    def test_arguments_are_checked(self):
        for wrong in (
            {'instance_uuid': 'x', 'console_type': 'novnc'},
            {'instance_uuid': SCREEN.uuid, 'console_type': 'telepathy'},
            {'instance_uuid': SCREEN.uuid},
            {'instance_uuid': SCREEN.uuid, 'console_type': 'novnc', 'ttl': 1},
        ):
            self.assert_refused(exception.InvalidArgument, self.agent.get_console, **wrong)


class ListConsolesTest(EndpointCase):
    def test_all_consoles_of_the_instance(self):
        found = self.agent.list_consoles(self.context, instance_uuid=PORTS.uuid)
        self.assertIsInstance(found, objects.ConsoleConnectionList)
        self.assertEqual([10000, 10001, 10002, 10003], [console.port for console in found.objects])
        self.assertEqual({HOST}, {console.compute_host for console in found.objects})

    def test_an_instance_that_is_not_on_this_host(self):
        unknown = str(uuid.uuid4())
        self.assert_refused(exception.InstanceNotFound, self.agent.list_consoles, instance_uuid=unknown)


class CheckConsoleTest(EndpointCase):
    def check(self, **changed):
        console = {'instance_uuid': PORTS.uuid, 'host': PORTS.host, 'port': 10001, 'console_type': 'serial'}
        return self.agent.check_console(self.context, **(console | changed))

    def test_a_console_of_the_instance(self):
        self.assertIs(True, self.check())

    def test_any_other_console(self):
        for changed in (
            {'instance_uuid': SCREEN.uuid},
            {'instance_uuid': str(uuid.uuid4())},
            {'host': '192.0.2.11'},
            {'port': 10004},
            {'console_type': 'novnc'},
        ):
            self.assertIs(False, self.check(**changed), changed)


class RecordingReconciler:
    """Records the consoles that the managers must know."""

    def __init__(self):
        self.ensured = []

    def ensure_reported(self, instance_uuid, consoles, timeout, *, force=False):
        self.ensured.append((instance_uuid, [console.port for console in consoles], force))


class FakePortConflicts:
    """The addresses in ``shared`` are shared."""

    def __init__(self):
        self.shared = set()

    def is_shared(self, instance_uuid, host, port):
        return (host, port) in self.shared

    def exclude_shared(self, consoles):
        return [console for console in consoles if (console.host, console.port) not in self.shared]


class AgentTest(EndpointCase):
    """With a reconciler, and with addresses that two instances share."""

    def setUp(self):
        super().setUp()
        self.reconciler = RecordingReconciler()
        self.port_conflicts = FakePortConflicts()
        self.observed = []
        self.agent = endpoint.ComputeConsoleEndpoint(
            self.driver,
            self.manager,
            self.reconciler,
            self.port_conflicts,
            lambda *observed: self.observed.append(observed[:2]),
        )

    def get(self, guest, console_type):
        return self.agent.get_console(self.context, instance_uuid=guest.uuid, console_type=console_type)

    def test_all_consoles_of_the_instance_are_reported_before_one_is_authorized(self):
        reports_before = []

        def authorize(context, grant):
            reports_before.append(len(self.reconciler.ensured))
            return grant

        self.manager.authorize = authorize
        self.get(PORTS, 'serial')
        self.assertEqual([1], reports_before)
        self.assertEqual([(PORTS.uuid, [10000, 10001, 10002, 10003], False)], self.reconciler.ensured)

    def test_an_instance_that_the_managers_have_lost_is_reported_again(self):
        for error in (
            exception.InstanceNotFound(instance_uuid=PORTS.uuid),
            exception.ConsolePortsExhausted(instance_uuid=PORTS.uuid, console_type='serial'),
        ):
            self.reconciler.ensured.clear()
            answers = [error, None]

            def authorize(context, grant, answers=answers):
                answer = answers.pop(0)
                if answer is not None:
                    raise answer
                return grant

            self.manager.authorize = authorize
            self.assertEqual(PORTS.uuid, self.get(PORTS, 'serial').instance_uuid)
            self.assertEqual([False, True], [force for _, _, force in self.reconciler.ensured])

    def test_an_instance_that_the_managers_have_on_another_host_is_reported_again(self):
        hosts = ['node-2', HOST]

        def authorize(context, grant):
            grant.compute_host = hosts.pop(0)
            return grant

        self.manager.authorize = authorize
        self.assertEqual(HOST, self.get(PORTS, 'serial').compute_host)
        self.assertEqual([False, True], [force for _, _, force in self.reconciler.ensured])

    def test_a_second_refusal_is_final(self):
        self.manager.refusal = exception.ConsolePortsExhausted(
            instance_uuid=PORTS.uuid, console_type='serial'
        )
        self.assert_refused(
            exception.ConsolePortsExhausted,
            self.agent.get_console,
            instance_uuid=PORTS.uuid,
            console_type='serial',
        )
        self.assertEqual(2, len(self.manager.calls))

    def test_a_console_at_a_shared_address_is_not_offered(self):
        self.port_conflicts.shared = {(SCREEN.host, 5900), (PORTS.host, 10000)}
        self.assert_refused(
            exception.ConsoleTypeUnavailable,
            self.agent.get_console,
            instance_uuid=SCREEN.uuid,
            console_type='novnc',
        )
        self.assertEqual([], self.manager.calls)
        found = self.agent.list_consoles(self.context, instance_uuid=PORTS.uuid)
        self.assertEqual([10001, 10002, 10003], [console.port for console in found.objects])
        self.get(PORTS, 'serial')
        self.assertEqual([10001, 10002, 10003], self.reconciler.ensured[-1][1])

    def test_a_console_at_a_shared_address_belongs_to_nobody(self):
        console = {'instance_uuid': PORTS.uuid, 'host': PORTS.host, 'port': 10000, 'console_type': 'serial'}
        self.assertIs(True, self.agent.check_console(self.context, **console))
        self.port_conflicts.shared = {(PORTS.host, 10000)}
        self.assertIs(False, self.agent.check_console(self.context, **console))

    def test_calls_are_observed(self):
        self.get(SCREEN, 'novnc')
        self.assert_refused(exception.InvalidArgument, self.agent.list_consoles, instance_uuid='x')
        self.assertEqual(versions.RPC_VERSION, self.agent.ping(self.context))
        self.assertEqual(
            [('get_console', 'ok'), ('list_consoles', 'invalid_argument'), ('ping', 'ok')], self.observed
        )


class ExposedTest(testtools.TestCase):
    def test_exactly_the_contract_can_be_called(self):
        policy = oslo_messaging.ExplicitRPCAccessPolicy()
        cls = endpoint.ComputeConsoleEndpoint
        allowed = {name for name in dir(cls) if policy.is_allowed(cls, name)}
        self.assertEqual({'get_console', 'list_consoles', 'check_console', 'ping'}, allowed)
