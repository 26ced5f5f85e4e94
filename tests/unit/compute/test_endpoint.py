# SPDX-License-Identifier: Apache-2.0
"""The compute agent's endpoint, with the demo's guests and a manager that writes down what it is asked."""

import uuid

import testtools
from oslo_messaging.rpc import dispatcher

from consoled import exception, objects
from consoled.compute import endpoint
from consoled.compute.drivers import base, demo
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
        self.agent = endpoint.ComputeConsoles(self.driver, self.manager)

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
            exception.InvalidConsole,
            self.agent.get_console,
            instance_uuid=SCREEN.uuid,
            console_type='serial',
        )
        self.assertIn('no serial console', str(error))
        self.assertEqual([], self.manager.asked)

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


class DriverTest(testtools.TestCase):
    def test_the_demo_has_two_guests(self):
        driver = demo.DemoDriver(HOST)
        self.assertIsInstance(driver, base.Driver)
        self.assertEqual([SCREEN.uuid, PORTS.uuid], driver.list_instances())

    def test_guests_can_be_given(self):
        guest = demo.Guest(str(uuid.uuid4()), 'bare', '192.0.2.1', ())
        driver = demo.DemoDriver(HOST, [guest])
        self.assertEqual([guest.uuid], driver.list_instances())
        self.assertEqual([], driver.list_consoles(guest.uuid))
