# SPDX-License-Identifier: Apache-2.0
"""Errors of peers are made anew: whatever a peer sends, its words do not reach those who read the error."""

import gc
import inspect
import json
import pathlib
import re
import tracemalloc

import testtools
from hypothesis import given
from hypothesis import strategies as st
from oslo_messaging._drivers import common as driver

import consoled
from consoled import exception
from consoled.rpc import errors
from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI
from consoled.rpc.transport import REMOTE_EXCEPTIONS
from tests.unit.rpc import fake_bus
from tests.unit.rpc.test_caller import FailingTarget

CANARY = 'Log in again at http://evil.example/'
INSTANCE = '2f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'

CLASSES = [
    each
    for _, each in inspect.getmembers(exception, inspect.isclass)
    if issubclass(each, exception.ConsoledException)
]
PLACEHOLDERS = sorted({name for cls in CLASSES for name in re.findall(r'%\((\w+)\)', cls.msg_fmt)})

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(CANARY),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
EXTRA = sorted({name for cls in CLASSES for name in cls.extra})
KWARGS = st.dictionaries(st.sampled_from([*PLACEHOLDERS, *EXTRA, 'seconds', 'message', 'self', 'x']), VALUES)
FAILURES = st.fixed_dictionaries(
    {
        'class': st.sampled_from([*(cls.__name__ for cls in CLASSES), 'StopIteration', 'TimeoutError', 'Any'])
        | VALUES,
        'module': st.sampled_from(['consoled.exception', 'builtins', 'exceptions', 'os', 'asyncio']) | VALUES,
        'message': st.just(CANARY) | VALUES,
        'args': st.just([]) | st.just([CANARY]) | VALUES,
        'kwargs': st.just({}) | KWARGS | VALUES,
        'tb': st.just([CANARY]) | VALUES,
    }
)


class Hostile(FailingTarget):
    """A peer that answers with this failure."""

    def __init__(self, failure):
        self.failure = failure

    def call(self, *args, **kwargs):
        raise driver.deserialize_remote_exception(self.failure, REMOTE_EXCEPTIONS)


def failure(cls, *args, **kwargs):
    """What a peer of ours that is not honest may send."""
    sent = {'class': cls, 'module': 'consoled.exception', 'args': args, 'kwargs': kwargs}
    return json.dumps({**sent, 'message': CANARY, 'tb': [CANARY]})


class PeerTestCase(testtools.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        transport = fake_bus.transport(cls)
        cls.agent, cls.manager = ComputeConsoleAPI(transport), ConsoleAuthAPI(transport)
        for api in (cls.agent, cls.manager):
            api._connected.set()  # no thread of its own for the first call

    def raised(self, api, method, sent, **values):
        """Return the error that a caller gets when its peer sends this failure."""
        try:
            api._call(None, method, Hostile(sent), **values)
        except exception.ConsoledException as exc:
            return exc
        raise AssertionError('not raised')


class AgentTest(PeerTestCase):
    """An agent is not believed: an attacker may have taken its host over."""

    def test_the_error_and_our_own_text_are_kept(self):
        for method in ('get_console', 'check_console'):
            sent = failure('InstanceNotReady', instance_uuid=INSTANCE, reason='it is being migrated')
            error = self.raised(self.agent, method, sent, instance_uuid=INSTANCE)
            self.assertIs(exception.InstanceNotReady, type(error))
            self.assertEqual(
                f'Instance {INSTANCE} has no console at the moment: it is being migrated.', str(error)
            )

    def test_its_words_are_replaced(self):
        for cls in ('InstanceNotReady', 'InvalidArgument', 'InvalidConsole', 'ManagerUnreachable'):
            sent = failure(cls, reason=CANARY, argument=CANARY, instance_uuid=CANARY)
            error = self.raised(self.agent, 'get_console', sent, instance_uuid=INSTANCE)
            self.assertEqual(cls, type(error).__name__)
            self.assertNotIn('evil', f'{error!s} {error!r} {error.args} {error.kwargs}')

    def test_the_text_speaks_of_what_the_caller_asked_for(self):
        other = INSTANCE.replace('2f', '3f')
        sent = failure('InstanceNotFound', instance_uuid=other)
        error = self.raised(self.agent, 'get_console', sent, instance_uuid=INSTANCE)
        self.assertEqual(f'Instance {INSTANCE} has no consoles here.', str(error))

    def test_an_error_that_is_not_its_to_raise_is_an_internal_one(self):
        """InvalidToken would count as a guess of the user, for example."""
        for cls in ('InvalidToken', 'RateLimited', 'ProxyUnknown', 'ConsoleInUse', 'TargetForbidden'):
            for method in ('check_console', 'get_console'):
                error = self.raised(self.agent, method, failure(cls, since='noon', seconds='x', proxy_id='x'))
                self.assertIs(exception.InternalError, type(error))
        for cls in ('InvalidArgument', 'ConsolePortsExhausted', 'ManagerBusy'):
            error = self.raised(self.agent, 'check_console', failure(cls, argument='host', reason='x'))
            self.assertIs(exception.InternalError, type(error))

    def test_drivers_give_reasons_that_are_shown(self):
        drivers = pathlib.Path(consoled.__file__).parent / 'compute' / 'drivers'
        texts = ''.join(path.read_text() for path in drivers.glob('*.py'))
        pattern = r"_not_ready\(instance_uuid, '([^']+)'|InstanceNotReady\([^)]*reason='([^']+)'"
        given = re.findall(pattern, texts)
        self.assertEqual(errors._REASONS_OF_AGENTS, {first or second for first, second in given})

    @given(failure=FAILURES, method=st.sampled_from(['check_console', 'get_console', 'list_consoles']))
    def test_whatever_it_sends_becomes_an_error_of_ours_without_its_words(self, failure, method):
        error = self.raised(self.agent, method, json.dumps(failure), instance_uuid=INSTANCE, host='x')
        self.assertIn(type(error), errors.OF_AGENTS)
        self.assertEqual(exception.__name__, type(error).__module__)
        self.assertNotIn('evil', f'{error!s} {error!r} {error.args} {error.kwargs}')
        self.assertTrue(len(str(error)) < 300 and str(error).isprintable())


class ManagerTest(PeerTestCase):
    """A manager is believed, within bounds."""

    def test_its_reasons_are_shown(self):
        sent = failure('InvalidConsole', reason='host and port must be given together')
        error = self.raised(self.manager, 'authorize', sent)
        self.assertEqual(
            'The console cannot be authorized: host and port must be given together.', str(error)
        )

    def test_values_out_of_bounds_are_not(self):
        for name, cls, value in (
            ('since', 'ConsoleInUse', 'x' * 10**6),
            ('since', 'ConsoleInUse', '\x1b[2J'),
            ('limit', 'TooManySessions', float('nan')),
            ('limit', 'TooManySessions', -1),
            ('limit', 'TooManySessions', '1' * 10**6),
            ('reason', 'InvalidConsole', ['x']),
            ('version', 'IncompatibleObject', '1' * 10**6),
        ):
            others = dict.fromkeys(PLACEHOLDERS, 'x')
            error = self.raised(self.manager, 'open_session', failure(cls, **{**others, name: value}))
            self.assertEqual(cls, type(error).__name__)
            self.assertEqual('?', error.kwargs[name])
            self.assertTrue(len(str(error)) < 200)

    def test_values_besides_the_text_are_complete_or_left_out(self):
        for values, expected in (
            ({'serial_ports': 4, 'free_ports': [2, 4]}, {'serial_ports': 4, 'free_ports': [2, 4]}),
            ({'serial_ports': 4, 'free_ports': list(range(1, 258))}, {}),
            ({'serial_ports': 4, 'free_ports': [CANARY]}, {}),
            ({'serial_ports': True, 'free_ports': [2]}, {}),
            ({'serial_ports': 4, 'free_ports': 'x'}, {}),
            ({}, {}),
        ):
            sent = failure('ConsoleInUse', since='noon', **values)
            error = self.raised(self.manager, 'open_session', sent)
            self.assertEqual({'since': 'noon', **expected}, error.kwargs)
            self.assertEqual('The console has been in use since noon.', str(error))

    def test_the_errors_of_proxies_are_not_its_to_raise(self):
        for cls in errors._OF_PROXIES:
            error = self.raised(self.manager, 'open_session', failure(cls.__name__, seconds='x', reason='x'))
            self.assertIs(exception.InternalError, type(error))

    @given(failure=FAILURES, method=st.sampled_from(['open_session', 'validate', 'renew_lease']))
    def test_whatever_it_sends_becomes_an_error_of_ours(self, failure, method):
        error = self.raised(self.manager, method, json.dumps(failure), proxy_id=INSTANCE)
        self.assertIn(type(error), errors.OF_MANAGERS)
        self.assertTrue(len(str(error)) < 700 and str(error).isprintable())


class MemoryTest(PeerTestCase):
    def test_a_large_text_is_not_kept_until_the_garbage_collector_comes(self):
        large = 'x' * 10**6
        kinds = (('InstanceNotReady', 'consoled.exception'), ('X', 'os'), ('KeyError', 'builtins'))
        sent = [
            json.dumps({'class': cls, 'module': module, 'message': large, 'args': [large], 'tb': [large]})
            for cls, module in kinds
        ]
        for each in sent:  # what is made once is made now
            self.raised(self.agent, 'check_console', each)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        kept = [self.raised(self.agent, 'check_console', each) for each in sent * 3]
        self.assertEqual(9, len(kept))
        self.assertTrue(tracemalloc.get_traced_memory()[0] < len(large))


class KindsTest(testtools.TestCase):
    def test_each_value_of_a_text_is_checked(self):
        self.assertEqual({*PLACEHOLDERS, *EXTRA}, set(errors._VALUES))

    def test_each_error_is_a_manager_s_or_a_proxy_s(self):
        self.assertEqual(set(CLASSES), errors.OF_MANAGERS | errors._OF_PROXIES)
        self.assertLess(errors.OF_AGENTS, errors.OF_MANAGERS)
