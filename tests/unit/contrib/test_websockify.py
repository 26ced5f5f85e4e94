# SPDX-License-Identifier: Apache-2.0
"""The token plugin of websockify: what it serves, refuses and logs (invariants 1 and 8)."""

import contextlib
import logging
import pathlib
import pickle
import socket
import subprocess
import sys
import threading
import time
from unittest import mock

import fixtures
import testtools
from websockify.websockifyserver import WebSockifyServer

from consoled import exception, objects, token
from consoled.contrib import websockify

INSTANCE = '0f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'
TOKEN = token.mint()
PASSWORD = 'bus-secret'


def a_grant(**changes):
    values = {
        'instance_uuid': INSTANCE,
        'console_type': 'novnc',
        'host': '10.0.0.7',
        'port': 5900,
        'compute_host': 'node-1',
        'options': {},
        'user_id': 'user-1',
        'project_id': 'project-1',
    }
    return objects.ConsoleAuthToken(**(values | changes))


class FakeManager:
    """Stands in for the client: ``validate`` returns or raises what ``answer`` does."""

    def __init__(self):
        self.calls = []
        self.opened = self.closed = 0
        self.answer = a_grant

    def validate(self, context, token):
        self.calls.append((context.request_id, token))
        return self.answer()

    @contextlib.contextmanager
    def connect(self):
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1


class PluginTestCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.logged = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
        log = WebSockifyServer.get_logger()
        self.addCleanup(log.removeFilter, websockify._redact_query)

    def file(self, text='', name='consoled.conf'):
        path = self.directory / name
        path.write_text(f'[DEFAULT]\ntransport_url = rabbit://u:{PASSWORD}@127.0.0.1:1/\n{text}\n')
        return str(path)

    def plugin(self, text='', parameters=''):
        """Return a plugin with these lines in its file, and ``self.manager`` as its manager."""
        plugin = websockify.ConsoledToken(self.file(text) + parameters)
        self.manager = FakeManager()
        plugin._connect_manager = self.manager.connect
        return plugin

    def refusal(self, plugin, asked=TOKEN):
        """Return the message of the refusal, which websockify logs."""
        error = self.assertRaises(WebSockifyServer.EClose, plugin.lookup, asked)
        (text,) = error.args
        self.assertNotIn(asked, text)
        self.assertIsNone(error.__cause__)
        return text


class LookupTest(PluginTestCase):
    def test_a_good_token_gives_address_and_port(self):
        plugin = self.plugin()
        self.assertEqual(('10.0.0.7', 5900), plugin.lookup(TOKEN))
        ((request_id, asked),) = self.manager.calls
        self.assertEqual(TOKEN, asked)
        for shown in (INSTANCE, 'user-1', 'project-1', request_id):
            self.assertIn(shown, self.logged.output)
        self.assertNotIn(TOKEN, self.logged.output)

    def test_each_lookup_opens_and_closes_its_own_connections(self):
        plugin = self.plugin()
        plugin.lookup(TOKEN)
        plugin.lookup(TOKEN)
        self.assertEqual((2, 2), (self.manager.opened, self.manager.closed))
        self.manager.answer = mock.Mock(side_effect=exception.InvalidToken())
        self.refusal(plugin)
        self.assertEqual((3, 3), (self.manager.opened, self.manager.closed))

    def test_a_refusal_has_the_code_of_the_error_and_a_request_id(self):
        plugin = self.plugin()
        for error in (exception.InvalidToken(), exception.ManagerUnreachable(reason='x')):
            self.manager.answer = mock.Mock(side_effect=error)
            text = self.refusal(plugin)
            self.assertIn(error.code, text)
            self.assertIn(self.manager.calls[-1][0], text)

    def test_invariant_1_the_text_of_an_unexpected_error_is_not_logged(self):
        plugin = self.plugin()
        self.manager.answer = mock.Mock(side_effect=RuntimeError(f'with {TOKEN} in it'))
        self.assertIn('internal_error: RuntimeError', self.refusal(plugin))
        self.assertNotIn(TOKEN, self.logged.output)

    def test_a_malformed_token_is_refused_without_a_call(self):
        plugin = self.plugin()
        for text in ('', 'short', f'{TOKEN}\n', 'é' * 20, 'a' * 129):
            error = self.assertRaises(WebSockifyServer.EClose, plugin.lookup, text)
            self.assertIn('invalid_token', error.args[0])
        self.assertEqual([], self.manager.calls)
        self.assertEqual(0, self.manager.opened)

    def test_the_wait_for_the_manager_has_a_limit(self):
        plugin = self.plugin(parameters='?timeout=0.2')
        self.useFixture(fixtures.MockPatchObject(websockify, '_CLOSE_TIMEOUT', 0.1))
        answering = threading.Event()
        self.addCleanup(answering.set)
        self.manager.answer = lambda: answering.wait() and a_grant()
        began = time.monotonic()
        self.assertIn('manager_unreachable', self.refusal(plugin))
        self.assertLess(time.monotonic() - began, 10)

    def test_failures_to_connect_or_to_close_leave_no_traceback(self):
        plugin = self.plugin()

        @contextlib.contextmanager
        def unclosable():
            yield self.manager
            raise RuntimeError('closing')

        plugin._connect_manager = unclosable
        self.assertEqual(('10.0.0.7', 5900), plugin.lookup(TOKEN))
        plugin._connect_manager = mock.Mock(side_effect=OSError(TOKEN))
        self.assertIn('internal_error: OSError', self.refusal(plugin))

    def test_the_signals_of_websockify_are_not_caught(self):
        plugin = self.plugin()
        with mock.patch.object(websockify.futures.Future, 'result', side_effect=WebSockifyServer.Terminate()):
            self.assertRaises(WebSockifyServer.Terminate, plugin.lookup, TOKEN)


class PolicyTest(PluginTestCase):
    def refuses(self, expected, text='', **changes):
        plugin = self.plugin(text)
        self.manager.answer = lambda: a_grant(**changes)
        self.assertIn(expected, self.refusal(plugin))

    def serves(self, text='', **changes):
        plugin = self.plugin(text)
        self.manager.answer = lambda: a_grant(**changes)
        return plugin.lookup(TOKEN)

    def test_types_with_a_limit_of_sessions_are_refused(self):
        self.serves(console_type='spice-html5')
        self.refuses('[serial_console] max_sessions', console_type='serial')
        self.serves('[serial_console]\nmax_sessions = 0', console_type='serial')
        self.refuses('[vnc] max_sessions', '[vnc]\nmax_sessions = 2')
        self.refuses('[spice] max_sessions', '[spice]\nmax_sessions = 1', console_type='spice-html5')

    def test_types_that_cannot_be_relayed_are_refused(self):
        self.refuses('cannot serve webmks', console_type='webmks')
        self.refuses('cannot serve rdp-html5', console_type='rdp-html5')

    def test_novnc_is_refused_where_the_hypervisor_must_be_authenticated(self):
        self.refuses('auth_schemes', '[vnc]\nauth_schemes = vencrypt')
        self.serves('[vnc]\nauth_schemes = vencrypt, none')
        self.serves('[vnc]\nauth_schemes = vencrypt', console_type='spice-html5')

    def test_options_that_need_the_proxy_are_refused(self):
        for options in (
            {'mode': 'view'},
            {'mode': 'some other'},
            {'internal_access_path': '/x'},
            {'use_tls': 'true'},
            {'use_tls': 'True'},
            {'tls_port': '5901', 'use_tls': 'true'},
            {'of_a_later_release': 'x'},
        ):
            self.refuses(f'option {list(options)[-1]}', options=options)

    def test_harmless_options_are_served(self):
        options = {'mode': None, 'tls_port': '5901', 'use_tls': 'False', 'internal_access_path': None}
        self.assertEqual(('10.0.0.7', 5900), self.serves(options=options))

    def test_invariant_8_targets_are_in_the_allowed_networks_and_ports(self):
        allowed = '[proxy]\nallowed_networks = 192.0.2.0/24, 2001:db8::/64\nallowed_ports = 7000-7001'
        self.assertEqual(('192.0.2.9', 7001), self.serves(allowed, host='192.0.2.9', port=7001))
        self.assertEqual(('2001:db8::1', 7000), self.serves(allowed, host='2001:db8::1', port=7000))
        self.refuses('allowed_ports', allowed, host='192.0.2.9', port=7002)
        self.refuses('allowed_networks', allowed, host='192.0.3.9', port=7000)
        self.refuses('allowed_networks', allowed, host='2001:db8:0:1::1', port=7000)
        self.refuses('allowed_networks', host='127.0.0.1')
        self.refuses('allowed_networks', '[proxy]\nallowed_networks =')
        self.refuses('no host and port', host=None, port=None)

    def resolving(self, *addresses):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, '', (address, 5900)) for address in addresses]
        return mock.patch.object(websockify.socket, 'getaddrinfo', return_value=found)

    def test_invariant_8_a_name_is_resolved_once_and_checked(self):
        with self.resolving('203.0.113.5', '10.1.2.3'):
            self.assertEqual(('10.1.2.3', 5900), self.serves(host='node-1.example.org'))
        with self.resolving('203.0.113.5'):
            self.refuses('allowed_networks', host='node-1.example.org')
        with mock.patch.object(websockify.socket, 'getaddrinfo', side_effect=socket.gaierror()):
            self.refuses('cannot be resolved', host='node-1.example.org')

    def test_no_console_becomes_a_unix_socket(self):
        """websockify treats this host name as special: the port is the path of a socket."""
        with self.resolving('10.1.2.3'):
            self.assertEqual(('10.1.2.3', 5900), self.serves(host='unix_socket'))


class SourceTest(PluginTestCase):
    def wrong(self, expected, text='', parameters='', source=None):
        source = self.file(text) + parameters if source is None else source
        error = self.assertRaises(SystemExit, websockify.ConsoledToken, source)
        self.assertIn(expected, str(error))
        self.assertNotIn(PASSWORD, str(error))

    def test_the_last_of_several_files_wins(self):
        first = self.file('[proxy]\nallowed_ports = 1-2\n[vnc]\nmax_sessions = 1', 'one.conf')
        plugin = websockify.ConsoledToken(f'{first}, {self.file("[proxy]" + chr(10) + "allowed_ports = 3")}')
        self.assertEqual((range(3, 4),), plugin._policy.ports)
        self.assertEqual({'novnc', 'serial'}, set(plugin._policy.refused))

    def test_the_timeout(self):
        self.assertEqual(5, self.plugin()._timeout)
        self.assertEqual(1.5, self.plugin(parameters='?timeout=1.5')._timeout)
        for text in ('0', '-1', '61', 'nan', 'soon', ''):
            self.wrong('timeout', parameters=f'?timeout={text}')
        self.wrong('unknown parameters: types', parameters='?types=serial')

    def test_wrong_options_are_reported_at_the_start(self):
        self.wrong('missing.conf', source='/nonexistent/missing.conf')
        self.wrong('0/8x', '[proxy]\nallowed_networks = 10.0.0.0/8x')
        self.wrong('allowed_ports', '[proxy]\nallowed_ports = 99999')
        self.wrong('upgrade_levels', '[upgrade_levels]\nconsoled = 9.9')
        self.wrong('max_sessions', '[vnc]\nmax_sessions = -1')
        self.wrong('transport_url', f'transport_url = rabbit://u:{PASSWORD}@x:y/')
        tls = '[oslo_messaging_rabbit]\nssl_ca_file = /etc/passwd'
        self.wrong('ssl_ca_file is set, but ssl is not', tls)

    def test_a_broker_whose_certificate_is_not_checked_is_warned_of(self):
        logged = self.useFixture(fixtures.FakeLogger())
        self.plugin('[oslo_messaging_rabbit]\nssl = true')
        self.assertIn('ssl_ca_file is not set', logged.output)
        self.assertNotIn(PASSWORD, logged.output)

    def test_options_that_need_sessions_are_refused_at_the_start(self):
        self.wrong('single_use', '[consoleauth]\nsingle_use = true')
        self.wrong('enforce_session_timeout', '[consoleauth]\nenforce_session_timeout = true')
        self.wrong('any type of console', '[vnc]\nmax_sessions = 1\n[spice]\nmax_sessions = 1')

    def test_without_a_source_the_default_file_is_read(self):
        home = self.directory / '.consoled'
        home.mkdir()
        self.file('[proxy]\nallowed_ports = 7', '.consoled/consoled.conf')
        self.useFixture(fixtures.EnvironmentVariable('HOME', str(self.directory)))
        self.assertEqual((range(7, 8),), websockify.ConsoledToken(None)._policy.ports)

    def test_a_process_that_is_not_forked_creates_the_plugin_anew(self):
        plugin = pickle.loads(pickle.dumps(self.plugin('[proxy]\nallowed_ports = 7', '?timeout=2.5')))
        self.assertEqual((2.5, (range(7, 8),)), (plugin._timeout, plugin._policy.ports))
        self.assertEqual(self.plugin()._files, plugin._files)

    def test_an_idle_plugin_has_no_threads_and_no_connections(self):
        before = threading.enumerate()
        with mock.patch('consoled.rpc.transport.get_transport') as transport:
            websockify.ConsoledToken(self.file())
        self.assertEqual(before, threading.enumerate())
        transport.assert_not_called()

    def test_it_selects_threads_and_needs_no_eventlet(self):
        code = (
            'import sys\n'
            "sys.modules['eventlet'] = None\n"
            'from consoled.contrib import websockify\n'
            "assert 'oslo_messaging' not in sys.modules\n"
            f'websockify.ConsoledToken({self.file()!r})\n'
            'from oslo_service import backend\n'
            'print(backend.get_backend_type())'
        )
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
        self.assertEqual(('BackendType.THREADING\n', ''), (done.stdout, done.stderr))

    def test_the_reply_queue_is_deleted_soon(self):
        """Each open leaves one on the broker."""
        options = self.plugin()._conf.oslo_messaging_rabbit
        self.assertEqual(10, options.rabbit_transient_queues_ttl)


class LogTest(PluginTestCase):
    def test_invariant_1_queries_are_not_logged(self):
        self.plugin()
        log = WebSockifyServer.get_logger()
        log.info("192.0.2.1: Path: '%s'", f'/?token={TOKEN}')
        log.info(f'"GET /vnc.html?path=%3F%74oken%3D{TOKEN} HTTP/1.1" 200 -')
        log.info("Bad request syntax ('GET /?a b %s')", TOKEN)
        log.info('100% of {}')
        log.info('%d of %s', 1, 'x')
        self.assertNotIn(TOKEN, self.logged.output)
        for text in ("Path: '/?(query not logged)", 'GET /vnc.html?', '100% of {}', '1 of x'):
            self.assertIn(text, self.logged.output)
