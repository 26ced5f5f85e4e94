# SPDX-License-Identifier: Apache-2.0
"""The proxy from the operators' side: TLS, reload, a web server in front, killed workers, shutdown."""

import os
import shutil
import signal
import ssl
import threading
import time

import fixtures
import psutil
from testtools.content import text_content
from websockets.sync.client import unix_connect

from consoled.db import proxies
from consoled.testing.guests.tcp_guests import EchoGuest
from consoled.testing.services import free_port
from tests.functional import proxy_base, test_proxy
from tests.functional.raw_user import close_frame, handshake
from tests.functional.test_proxy_sessions import OK, TunnelGuest

NOTHING = b'GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n'


class ReloadTest(test_proxy.UsersTestCase):
    """TLS for users, and SIGHUP: open sessions continue, whatever the reload brings."""

    tls = True
    proxy_options = {'ssl_minimum_version': 'tlsv1_3', 'idle_timeout': 3600}

    def setUp(self):
        super().setUp()
        self.process = psutil.Process(self.worker)
        files = (self.authority.path, self.daemon.config_file)
        self.addCleanup(self.restore, self.daemon, {path: path.read_bytes() for path in files})

    def restore(self, daemon, contents):
        for path, content in contents.items():
            path.write_bytes(content)
        self.reload(daemon, 'Reloaded certificate')

    def reload(self, daemon, text):
        """Send SIGHUP, and wait until the log contains ``text`` once more."""
        before = daemon.log().count(text)
        daemon.signal(signal.SIGHUP)
        self.wait_until(lambda: daemon.log().count(text) > before, text)

    def assert_continues(self, user):
        """Assert that an open session works, and that its worker is still the same process."""
        self.assert_echo(user)
        self.assertTrue(self.process.is_running())

    def test_the_configured_tls_version_is_enforced(self):
        user = self.opened()
        self.assertEqual(('TLSv1.3', None), (user.sock.version(), user.sock.selected_alpn_protocol()))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertRaises((ssl.SSLError, ConnectionError), self.user, tls=old)
        self.assert_continues(user)

    def test_sighup_replaces_the_certificate_and_open_sessions_continue(self):
        user = self.opened()
        new = proxy_base.Authority(self.useFixture(fixtures.TempDir()).path)
        shutil.copy(new.path, self.authority.path)
        self.assertRaises(ssl.SSLCertVerificationError, self.user, tls=new.client)
        self.reload(self.daemon, 'Reloaded certificate')
        self.assertRaises(ssl.SSLCertVerificationError, self.user)
        self.assert_echo(self.opened(self.add(EchoGuest()), tls=new.client))
        self.assert_continues(user)

    def test_a_broken_certificate_leaves_the_old_one_in_use(self):
        user = self.opened()
        key = self.authority.path.read_bytes().partition(b'-----BEGIN CERTIFICATE')[0]
        for broken in (b'', b'no certificate', key):
            self.authority.path.write_bytes(broken)
            self.reload(self.daemon, 'ERROR consoled.proxy.server')
        self.authority.path.unlink()
        self.reload(self.daemon, 'ERROR consoled.proxy.server')
        self.assertEqual(404, self.user().send(NOTHING).answer().status)
        self.assert_continues(user)

    def test_a_reload_does_not_turn_tls_off(self):
        user = self.opened()
        good = self.daemon.config_file.read_text()
        self.daemon.config_file.write_text(good.replace('ssl_cert', '#ssl_cert'))
        self.reload(self.daemon, 'Restart to serve users without TLS')
        self.assertEqual(404, self.user().send(NOTHING).answer().status)
        self.assert_continues(user)

    def test_a_broken_config_file_leaves_the_old_options_in_use(self):
        user = self.opened()
        good = self.daemon.config_file.read_text()
        for broken in ('no config file', good.replace('= 3600', '= soon'), good.replace('= 3600', '= -1')):
            self.daemon.config_file.write_text(broken)
            self.reload(self.daemon, 'Not reloaded')
        self.daemon.config_file.unlink()
        self.reload(self.daemon, 'Not reloaded')
        self.assert_continues(user)
        self.daemon.config_file.write_text(good.replace('= 3600', '= 1'))
        self.reload(self.daemon, 'Reloaded certificate')
        self.assertEqual(4408, user.close_code())
        user.leave()
        self.assert_slot_free()

    def test_a_worker_that_is_replaced_has_the_reloaded_options(self):
        daemon = self.useFixture(self.new_daemon())
        daemon.wait_ready()
        self.use(daemon)
        good = daemon.config_file.read_text()
        daemon.config_file.write_text(good.replace('= 3600', '= 1'))
        self.reload(self.daemon, 'Reloaded certificate')
        os.kill(self.worker, signal.SIGKILL)
        target = self.grant()
        user = self.wait_until(lambda: self.attempt(target), 'another worker')
        self.assertEqual(4408, user.close_code())


class _WebServer:
    """A web server in front of the proxy, on a Unix socket; and users who pretend to be one."""

    FORWARDED = {
        'X-Forwarded-For': '203.0.113.66, 198.51.100.7',
        'X-Forwarded-Proto': 'https',
        'X-Forwarded-Host': 'www.example.net',
    }
    ORIGIN = 'https://www.example.net'

    def client_addresses(self):
        return [row[0] for row in self.rows('SELECT client_address FROM console_session')]

    def test_forwarded_headers_on_the_unix_socket_are_trusted(self):
        path = f'{self.useFixture(fixtures.TempDir()).path}/proxy.sock'
        daemon = self.useFixture(self.new_daemon(unix_socket=path))
        daemon.kill()  # leaves its socket behind, which must not keep it from starting
        daemon.start()
        daemon.wait_ready()
        headers = {'additional_headers': self.FORWARDED, 'origin': self.ORIGIN}
        with unix_connect(path, f'ws://proxy{self.grant()}', **headers) as client:
            self.assertEqual(b'hello', test_proxy.echoed(client, b'hello'))
            # the address added by the nearest server, not the one that the user may have written
            self.assertEqual(['198.51.100.7'], self.client_addresses())
            self.assertIn('client_address=198.51.100.7', daemon.log())

    def test_forwarded_headers_of_users_are_ignored(self):
        target = self.grant()
        headers = {name: value for name, value in self.FORWARDED.items() if name != 'X-Forwarded-For'}
        self.assert_refused_with(403, target, origin=self.ORIGIN, additional_headers=headers)
        client = self.connected(target, additional_headers=self.FORWARDED)
        self.assertEqual(b'hello', test_proxy.echoed(client, b'hello'))
        self.assertEqual(['127.0.0.1'], self.client_addresses())


class _Stop:
    """Shutdown with SIGTERM."""

    def refuses_connections(self):
        try:
            self.user().leave()
        except ConnectionRefusedError:
            return True
        return False

    def test_sessions_are_closed_and_their_slots_freed_at_once(self):
        self.use_another(close_timeout=proxy_base.PATIENCE, connect_timeout=proxy_base.PATIENCE)
        hurried = self.add(TunnelGuest(held=True))
        polite, rude = self.opened(), self.opened(self.add(EchoGuest()))
        opening = self.user().send(handshake(self.grant(hurried, options={'internal_access_path': '/'})))
        self.wait_until(lambda: hurried.waiting, 'the connection to the guest')
        self.daemon.signal(signal.SIGTERM)
        self.assertEqual(1012, polite.close_code())
        self.assertTrue(self.refuses_connections())
        polite.send(close_frame(1012)).leave()
        self.guests.host.call(hurried.respond(0, OK))
        answer = opening.answer()
        self.assertEqual(503, answer.status)
        self.assertIn('retry-after', answer.headers)
        opening.leave()
        self.wait_until(lambda: not self.count('console_session'), 'free slots')
        self.assertTrue(psutil.pid_exists(self.worker))  # waits for the user who has not answered yet
        self.assertTrue(self.refuses_connections())
        self.assertEqual(1012, rude.close_code())
        rude.leave()
        self.assertEqual(0, self.daemon.wait())

    def test_users_without_a_session_do_not_delay_the_shutdown(self):
        self.use_another(request_timeout=300, close_timeout=1)
        idle = self.user().send(NOTHING)
        self.assertEqual(404, idle.answer().status)
        begun = self.user().send(b'GET /')
        silent = self.user()
        began = time.monotonic()
        self.assertEqual(0, self.daemon.stop())
        self.assertLess(time.monotonic() - began, proxy_base.PATIENCE)
        for user in (idle, begun, silent):
            self.assertEqual(b'', user.ended())

    def test_an_unreachable_bus_does_not_delay_the_shutdown(self):
        daemon = self.new_daemon()
        daemon.options['DEFAULT']['transport_url'] = f'rabbit://guest:guest@127.0.0.1:{free_port()}//'
        self.useFixture(daemon)
        began = time.monotonic()
        self.assertEqual(0, daemon.stop())
        self.assertLess(time.monotonic() - began, proxy_base.PATIENCE)


class OperationsTest(_WebServer, _Stop, test_proxy.UsersTestCase):
    pass


class WorkersTest(test_proxy.UsersTestCase):
    """Two workers on one port."""

    options = {'manager__lease': 5}
    proxy_options = {'workers': 2}

    def use(self, daemon):
        self.daemon = daemon
        self.wait_until(daemon.ready, 'readiness')
        self.worker = daemon.worker_pids()[0]
        start = len(daemon.log())
        self.addOnException(lambda _: self.addDetail('proxy', text_content(daemon.log()[start:][-8000:])))

    def worker_process(self, name):
        """Return the process of the worker that is registered under this name."""
        number = name.rpartition(':')[2]
        [pid] = [pid for pid in self.daemon.worker_pids() if f'({number})' in self.daemon.process_title(pid)]
        return psutil.Process(pid)

    def names(self):
        """Return the names of the proxies that have sessions."""
        query = 'SELECT name FROM console_proxy JOIN console_session ON proxy_id = console_proxy.id'
        return {row[0] for row in self.rows(query)}

    def test_both_are_registered_and_serve_users(self):
        host, port = self.daemon.host, self.daemon.port
        both = {f'{host}:{port}:0', f'{host}:{port}:1'}
        rows = self.rows('SELECT name FROM console_proxy WHERE name LIKE :name', name=f'{host}:%')
        self.assertEqual(both, {row[0] for row in rows})
        for name in both:
            other = self.worker_process(name)
            other.suspend()  # so that the next user is accepted by the other worker
            try:
                user = self.opened(target=self.grant(console_type='webmks'))
            finally:
                other.resume()
            self.assert_echo(user)
        self.assertEqual(both, self.names())
        self.assertEqual(2, self.metric('consoled_proxy_sessions'))

    def test_invariant_4_a_killed_worker_holds_nothing_after_its_lease(self):
        target = self.grant()
        user = self.opened(target=target)
        [name] = self.names()
        let_in = self.hold_registrations()
        self.worker_process(name).kill()
        self.assertIsNone(user.close_code())
        self.wait_until(lambda: not self.metric('consoled_proxy_sessions'), 'the end of its metrics')
        self.wait_until(lambda: not self.daemon.ready(), 'being not ready')
        statuses = set()
        again = self.wait_until(lambda: self.attempt(target, statuses), 'the slot')  # on the other worker
        self.assertLessEqual(statuses, {409, 503})
        self.assert_echo(again)
        self.assertNotIn(name, self.names())
        self.assertFalse(self.daemon.ready())
        let_in.set()
        self.wait_until(self.daemon.ready, 'readiness')
        self.assert_echo(again)

    def hold_registrations(self):
        """Keep proxies from registering until the returned event is set."""
        let_in, register = threading.Event(), proxies.register
        self.addCleanup(let_in.set)

        def held(*args):
            let_in.wait(proxy_base.PATIENCE)
            return register(*args)

        self.useFixture(fixtures.MonkeyPatch('consoled.db.proxies.register', held))
        return let_in

    def test_a_replaced_worker_frees_the_slots_of_its_predecessor(self):
        target = self.grant()
        user = self.opened(target=target)
        [name] = self.names()
        self.worker_process(name).kill()
        self.assertIsNone(user.close_code())
        self.assert_echo(self.wait_until(lambda: self.attempt(target), 'the slot'))
