# SPDX-License-Identifier: Apache-2.0
"""The clients agree with the endpoint on the contract."""

import inspect

import oslo_messaging
import testtools

from consoled.manager.manager import ConsoleAuthManager
from consoled.rpc import client
from consoled.rpc.replies import Closing, HostChanges, LeaseGrant, LeaseRenewal, Revocation

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


class Recorder(client.ConsoleAuthAPI):
    """A client whose calls are answered with ``reply``; ``sent`` has their values on the wire."""

    def __init__(self, reply=None):
        self.reply = reply
        self.sent = []

    def _call(self, context, method, target=None, **values):
        self.sent.append(('call', method, values))
        return self.reply

    def _cast(self, context, method, target=None, **values):
        self.sent.append(('cast', method, values))


class WireTest(testtools.TestCase):
    """The wire has plain values; callers have dataclasses."""

    def test_closings_are_dicts_on_the_wire(self):
        api = Recorder({'lease': 60, 'now': 'now', 'cut': {}})
        closing = Closing('an-id', 'idle', 1, 2)
        wire = {'session_id': 'an-id', 'reason': 'idle', 'bytes_in': 1, 'bytes_out': 2}
        api.close_session(None, closing)
        api.renew_lease(None, 'proxy', [closing], ['an-id'], 'then')
        api.renew_lease(None, 'proxy')
        self.assertEqual(
            [
                ('call', 'close_session', wire),
                (
                    'call',
                    'renew_lease',
                    {'proxy_id': 'proxy', 'closed': [wire], 'sessions': ['an-id'], 'as_of': 'then'},
                ),
                (
                    'call',
                    'renew_lease',
                    {'proxy_id': 'proxy', 'closed': None, 'sessions': None, 'as_of': None},
                ),
            ],
            api.sent,
        )

    def test_replies_are_dataclasses(self):
        lease = {'lease': 60, 'now': 'now'}
        self.assertEqual(LeaseGrant(60, 'now'), Recorder(lease).register_proxy(None, 'proxy', 'name'))
        renewed = Recorder({**lease, 'cut': {'an-id': 'idle'}}).renew_lease(None, 'proxy')
        self.assertEqual(LeaseRenewal(60, 'now', {'an-id': 'idle'}), renewed)
        revoked = Recorder({'tokens': 1, 'sessions': 2}).revoke(None, 'test', user_id='u')
        self.assertEqual(Revocation(tokens=1, sessions=2), revoked)
        changes = Recorder({'retired': 1, 'changed': 2}).define_host(None, 'node-1', [], None)
        self.assertEqual(HostChanges(retired=1, changed=2), changes)

    def test_instances_whose_consoles_are_unknown_keep_their_name_on_the_wire(self):
        api = Recorder({'retired': 0, 'changed': 0})
        api.define_host(None, 'node-1', ('a', 'b'), None, unknown=('b',))
        _, _, values = api.sent[0]
        self.assertEqual((['a', 'b'], ['b']), (values['instance_uuids'], values['unsure']))

    def test_casts_become_calls_for_those_who_wait(self):
        api = Recorder()
        for wait in (False, True):
            api.define_consoles(None, 'i', 'node-1', None, wait=wait)
            api.clean_console_auths_for_instance(None, 'i', wait=wait)
        self.assertEqual(['cast', 'cast', 'call', 'call'], [kind for kind, _, _ in api.sent])
