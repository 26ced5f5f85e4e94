# SPDX-License-Identifier: Apache-2.0
"""The clients agree with the endpoint on the contract."""

import inspect

import oslo_messaging
import testtools

from consoled.manager.manager import ConsoleAuthManager
from consoled.rpc import client

CONTRACT = {
    'authorize',
    'validate',
    'list_free_ports',
    'define_consoles',
    'define_host',
    'open_session',
    'close_session',
    'register_proxy',
    'renew_lease',
    'revoke',
    'clean_console_auths_for_instance',
    'clean_expired_console_auths_for_host',
    'list_sessions',
    'object_backport_versions',
    'ping',
}


class ContractTest(testtools.TestCase):
    def test_exactly_the_contract_can_be_called(self):
        policy = oslo_messaging.ExplicitRPCAccessPolicy()
        allowed = {name for name in dir(ConsoleAuthManager) if policy.is_allowed(ConsoleAuthManager, name)}
        self.assertEqual(CONTRACT, allowed)

    def test_the_client_has_each_method(self):
        methods = {
            name
            for name, _ in inspect.getmembers(client.ConsoleAuthAPI, inspect.isfunction)
            if not name.startswith('_')
        }
        self.assertEqual(CONTRACT, methods)
