# SPDX-License-Identifier: Apache-2.0
"""The compute agent's endpoint, with the demo's guests and a manager that writes down what it is asked."""

import dataclasses
import uuid

import oslo_messaging
import testtools
from oslo_messaging.rpc import dispatcher

from consoled import exception, objects
from consoled.compute import endpoint
from consoled.compute.drivers import demo
from consoled.context import RequestContext

HOST = 'compute-9'
SCREEN, PORTS = demo.DESKTOP, demo.ROUTER


class Manager:
    def __init__(self):
        self.asked = []
        self.refusal = None

    def authorize(self, context, grant, ttl=None):
        self.asked.append((context, grant, ttl))
        if self.refusal is not None:
            raise self.refusal
        answer = grant.obj_clone()
        answer.token = 't' * 43
        return answer


class EndpointCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.manager = Manager()
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

    def test_the_only_console_is_asked_for_by_its_place(self):
        answer = self.get(SCREEN, 'novnc')
        self.assertEqual('t' * 43, answer.token)
        ((context, grant, ttl),) = self.manager.asked
        self.assertIs(self.context, context)
        self.assertIsNone(ttl)
        (console,) = self.driver.list_consoles(SCREEN.uuid)
        for name in objects.ConsoleConnection.fields:
            self.assertEqual(getattr(console, name), getattr(grant, name), name)

    def test_of_several_the_manager_chooses(self):
        self.get(PORTS, 'serial')
        ((_, grant, _),) = self.manager.asked
        grant.obj_set_defaults()
        self.assertEqual(
            (PORTS.uuid, 'serial', HOST, None, None),
            (grant.instance_uuid, grant.console_type, grant.compute_host, grant.host, grant.port),
        )

    def test_user_and_project_are_those_of_the_context(self):
        self.get(SCREEN, 'novnc')
        ((_, grant, _),) = self.manager.asked
        grant.obj_set_defaults()
        self.assertEqual((None, None), (grant.user_id, grant.project_id))  # the manager takes the context's

    def test_a_guest_that_is_not_here(self):
        elsewhere = str(uuid.uuid4())
        self.assert_refused(
            exception.InstanceNotFound,
            self.agent.get_console,
            instance_uuid=elsewhere,
            console_type='novnc',
        )
        self.assertEqual([], self.manager.asked)

    def test_a_type_that_the_guest_has_not(self):
        error = self.assert_refused(
            exception.ConsoleTypeUnavailable,
            self.agent.get_console,
            instance_uuid=SCREEN.uuid,
            console_type='serial',
        )
        self.assertIn('no serial console', str(error))
        self.assertEqual([], self.manager.asked)

    def test_a_guest_that_does_not_run(self):
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
    def test_all_of_the_guest(self):
        found = self.agent.list_consoles(self.context, instance_uuid=PORTS.uuid)
        self.assertIsInstance(found, objects.ConsoleConnectionList)
        self.assertEqual([10000, 10001, 10002, 10003], [console.port for console in found.objects])
        self.assertEqual({HOST}, {console.compute_host for console in found.objects})

    def test_a_guest_that_is_not_here(self):
        unknown = str(uuid.uuid4())
        self.assert_refused(exception.InstanceNotFound, self.agent.list_consoles, instance_uuid=unknown)


class CheckConsoleTest(EndpointCase):
    def check(self, **changed):
        asked = {'instance_uuid': PORTS.uuid, 'host': PORTS.host, 'port': 10001, 'console_type': 'serial'}
        return self.agent.check_console(self.context, **(asked | changed))

    def test_it_is_there(self):
        self.assertIs(True, self.check())

    def test_anything_else_is_not(self):
        for changed in (
            {'instance_uuid': SCREEN.uuid},
            {'instance_uuid': str(uuid.uuid4())},
            {'host': '192.0.2.11'},
            {'port': 10004},
            {'console_type': 'novnc'},
        ):
            self.assertIs(False, self.check(**changed), changed)


class Knowledge:
    """A synchronizer that writes down what is to be known; ``taken`` has contested places."""

    def __init__(self):
        self.ensured = []
        self.taken = set()

    def ensure(self, instance_uuid, consoles, timeout, *, anew=False):
        self.ensured.append((instance_uuid, [console.port for console in consoles], anew))

    def contested(self, instance_uuid, host, port):
        return (host, port) in self.taken

    def without_contested(self, consoles):
        return [console for console in consoles if (console.host, console.port) not in self.taken]


class KnowledgeTest(EndpointCase):
    """What the managers must know before, and what two guests have at once."""

    def setUp(self):
        super().setUp()
        self.knowledge = Knowledge()
        self.observed = []
        self.agent = endpoint.ComputeConsoleEndpoint(
            self.driver, self.manager, self.knowledge, lambda *observed: self.observed.append(observed[:2])
        )

    def get(self, guest, console_type):
        return self.agent.get_console(self.context, instance_uuid=guest.uuid, console_type=console_type)

    def test_all_consoles_of_the_guest_are_known_before_one_is_authorized(self):
        known = []

        def authorize(context, grant):
            known.append(len(self.knowledge.ensured))
            return grant

        self.manager.authorize = authorize
        self.get(PORTS, 'serial')
        self.assertEqual([1], known)
        self.assertEqual([(PORTS.uuid, [10000, 10001, 10002, 10003], False)], self.knowledge.ensured)

    def test_a_guest_that_the_managers_have_forgotten_is_told_of_anew(self):
        for error in (
            exception.InstanceNotFound(instance_uuid=PORTS.uuid),
            exception.ConsolePortsExhausted(instance_uuid=PORTS.uuid, console_type='serial'),
        ):
            self.knowledge.ensured.clear()
            answers = [error, None]

            def authorize(context, grant, answers=answers):
                answer = answers.pop(0)
                if answer is not None:
                    raise answer
                return grant

            self.manager.authorize = authorize
            self.assertEqual(PORTS.uuid, self.get(PORTS, 'serial').instance_uuid)
            self.assertEqual([False, True], [anew for _, _, anew in self.knowledge.ensured])

    def test_a_guest_that_the_managers_believe_elsewhere_is_told_of_anew(self):
        hosts = ['node-2', HOST]

        def authorize(context, grant):
            grant.compute_host = hosts.pop(0)
            return grant

        self.manager.authorize = authorize
        self.assertEqual(HOST, self.get(PORTS, 'serial').compute_host)
        self.assertEqual([False, True], [anew for _, _, anew in self.knowledge.ensured])

    def test_what_is_refused_twice_is_refused(self):
        self.manager.refusal = exception.ConsolePortsExhausted(
            instance_uuid=PORTS.uuid, console_type='serial'
        )
        self.assert_refused(
            exception.ConsolePortsExhausted,
            self.agent.get_console,
            instance_uuid=PORTS.uuid,
            console_type='serial',
        )
        self.assertEqual(2, len(self.manager.asked))

    def test_a_contested_console_is_not_handed_out(self):
        self.knowledge.taken = {(SCREEN.host, 5900), (PORTS.host, 10000)}
        self.assert_refused(
            exception.ConsoleTypeUnavailable,
            self.agent.get_console,
            instance_uuid=SCREEN.uuid,
            console_type='novnc',
        )
        self.assertEqual([], self.manager.asked)
        found = self.agent.list_consoles(self.context, instance_uuid=PORTS.uuid)
        self.assertEqual([10001, 10002, 10003], [console.port for console in found.objects])
        self.get(PORTS, 'serial')
        self.assertEqual([10001, 10002, 10003], self.knowledge.ensured[-1][1])

    def test_a_contested_console_is_nobodys(self):
        place = {'instance_uuid': PORTS.uuid, 'host': PORTS.host, 'port': 10000, 'console_type': 'serial'}
        self.assertIs(True, self.agent.check_console(self.context, **place))
        self.knowledge.taken = {(PORTS.host, 10000)}
        self.assertIs(False, self.agent.check_console(self.context, **place))

    def test_calls_are_observed(self):
        self.get(SCREEN, 'novnc')
        self.assert_refused(exception.InvalidArgument, self.agent.list_consoles, instance_uuid='x')
        self.assertEqual('1.0', self.agent.ping(self.context))
        self.assertEqual(
            [('get_console', 'ok'), ('list_consoles', 'invalid_argument'), ('ping', 'ok')], self.observed
        )


class ExposedTest(testtools.TestCase):
    def test_exactly_the_contract_can_be_called(self):
        policy = oslo_messaging.ExplicitRPCAccessPolicy()
        cls = endpoint.ComputeConsoleEndpoint
        allowed = {name for name in dir(cls) if policy.is_allowed(cls, name)}
        self.assertEqual({'get_console', 'list_consoles', 'check_console', 'ping'}, allowed)
