# SPDX-License-Identifier: Apache-2.0
"""Failures of calls become domain errors."""

import threading

import kombu.exceptions
import oslo_messaging
import testtools
from oslo_messaging import exceptions as messaging_exc

from consoled import exception
from consoled.rpc import client
from consoled.rpc.transport import get_transport
from consoled.testing import fixtures


class FailingTarget:
    """A prepared client whose calls and casts raise ``error``."""

    timeout = 1

    def __init__(self, error):
        self.error = error

    def call(self, *args, **kwargs):
        raise self.error

    cast = call


class ClientErrorsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.transport = get_transport(self.useFixture(fixtures.Conf(transport_url='fake:/')).conf)

    def test_a_bus_that_was_never_there_is_not_waited_for_without_end(self):
        api = client.ConsoleAuthAPI(self.transport)
        never = threading.Event()
        self.addCleanup(never.set)
        target = FailingTarget(None)
        target.timeout = -0.9  # an answer would have to be there within a tenth of a second
        target.call = lambda *args, **kwargs: never.wait()
        for _ in range(2):  # the first connects, the second waits for it
            self.assertRaises(exception.ManagerUnreachable, api._call, None, 'x', target)

    def check(self, api, error, expected):
        api = api(self.transport)
        self.assertRaises(expected, api._call, None, 'x', FailingTarget(error))

    def test_the_bus_and_the_peer_are_errors_of_the_domain(self):
        for error in (
            messaging_exc.MessagingTimeout(),
            messaging_exc.MessageDeliveryFailure(),
            messaging_exc.MessageUndeliverable('x', 'y', 'z', 'w'),
            kombu.exceptions.OperationalError('connection refused'),
        ):
            self.check(client.ConsoleAuthAPI, error, exception.ManagerUnreachable)
            self.check(client.ComputeConsoleAPI, error, exception.ComputeUnreachable)

    def test_an_error_of_the_peer_itself_is_internal(self):
        self.check(client.ConsoleAuthAPI, oslo_messaging.RemoteError('X', 'y', []), exception.InternalError)

    def test_a_cast_that_the_bus_does_not_take(self):
        for api, expected in (
            (client.ProxyAPI, exception.ManagerUnreachable),
            (client.ComputeConsoleAPI, exception.ComputeUnreachable),
        ):
            target = FailingTarget(messaging_exc.MessageDeliveryFailure())
            self.assertRaises(expected, api(self.transport)._cast, None, 'x', target)

    def test_an_unknown_level_is_refused(self):
        self.assertRaises(ValueError, client.ConsoleAuthAPI, self.transport, level='9.9')

    def test_a_remote_error_loses_its_traceback(self):
        remote = type(
            'ConsoleInUse_Remote',
            (exception.ConsoleInUse,),
            {'__str__': lambda self: 'text\nTraceback …', '__module__': 'consoled.exception_Remote'},
        )
        api = client.ConsoleAuthAPI(self.transport)
        error = self.assertRaises(
            exception.ConsoleInUse, api._call, None, 'x', FailingTarget(remote(since='noon'))
        )
        self.assertEqual('The console has been in use since noon.', str(error))
        self.assertIs(exception.ConsoleInUse, type(error))
