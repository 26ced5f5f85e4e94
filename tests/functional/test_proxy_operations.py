# SPDX-License-Identifier: Apache-2.0
"""The proxy as its operators meet it: certificates, reload, web servers before it, dead workers, stopping."""

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
from tests.functional.proxy_base import close_frame, handshake
from tests.functional.test_proxy_sessions import OK, Gatekeeper

NOTHING = b'GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n'


class ReloadTest(test_proxy.UsersTestCase):
    """TLS for users, and SIGHUP: whatever it brings, open sessions go on."""

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
        self.reload(daemon, 'were read again')

    def reload(self, daemon, told):
        """SIGHUP, and wait for what the log says then."""
        before = daemon.log().count(told)
        daemon.signal(signal.SIGHUP)
        self.wait_until(lambda: daemon.log().count(told) > before, told)

    def assert_goes_on(self, user):
        """An open session does, in the process it was in."""
        self.assert_echo(user)
        self.assertTrue(self.process.is_running())

    def test_users_are_served_over_tls_of_the_version_configured(self):
        user = self.opened()
        self.assertEqual(('TLSv1.3', None), (user.sock.version(), user.sock.selected_alpn_protocol()))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertRaises((ssl.SSLError, ConnectionError), self.user, tls=old)
        self.assert_goes_on(user)

    def test_sighup_replaces_the_certificate_and_open_sessions_go_on(self):
        user = self.opened()
        new = proxy_base.Authority(self.useFixture(fixtures.TempDir()).path)
        shutil.copy(new.path, self.authority.path)
        self.assertRaises(ssl.SSLCertVerificationError, self.user, tls=new.client)
        self.reload(self.daemon, 'were read again')
        self.assertRaises(ssl.SSLCertVerificationError, self.user)
        self.assert_echo(self.opened(self.add(EchoGuest()), tls=new.client))
        self.assert_goes_on(user)

    def test_a_certificate_that_is_broken_leaves_the_one_before(self):
        user = self.opened()
        key = self.authority.path.read_bytes().partition(b'-----BEGIN CERTIFICATE')[0]
        for broken in (b'', b'no certificate', key):
            self.authority.path.write_bytes(broken)
            self.reload(self.daemon, 'ERROR consoled.proxy.server')
        self.authority.path.unlink()
        self.reload(self.daemon, 'ERROR consoled.proxy.server')
        self.assertEqual(404, self.user().send(NOTHING).answer().status)
        self.assert_goes_on(user)

    def test_a_config_file_that_is_broken_leaves_the_options_before(self):
        user = self.opened()
        good = self.daemon.config_file.read_text()
        for broken in ('no config file', good.replace('= 3600', '= soon'), good.replace('= 3600', '= -1')):
            self.daemon.config_file.write_text(broken)
            self.reload(self.daemon, 'not reloaded')
        self.daemon.config_file.unlink()
        self.reload(self.daemon, 'not reloaded')
        self.assert_goes_on(user)
        self.daemon.config_file.write_text(good.replace('= 3600', '= 1'))
        self.reload(self.daemon, 'were read again')
        self.assertEqual(4408, user.close_code())
        user.leave()
        self.assert_slot_free()

    def test_a_worker_that_is_started_anew_has_what_was_reloaded(self):
        daemon = self.useFixture(self.new_daemon())
        daemon.wait_ready()
        self.use(daemon)
        good = daemon.config_file.read_text()
        daemon.config_file.write_text(good.replace('= 3600', '= 1'))
        self.reload(self.daemon, 'were read again')
        os.kill(self.worker, signal.SIGKILL)
        target = self.grant()
        user = self.wait_until(lambda: self.attempt(target), 'another worker')
        self.assertEqual(4408, user.close_code())


class _WebServer:
    """A web server before the proxy, on a unix socket; and users who pretend to be one."""

    FORWARDED = {
        'X-Forwarded-For': '203.0.113.66, 198.51.100.7',
        'X-Forwarded-Proto': 'https',
        'X-Forwarded-Host': 'www.example.net',
    }
    ORIGIN = 'https://www.example.net'

    def client_addresses(self):
        return [row[0] for row in self.rows('SELECT client_address FROM console_session')]

    def test_the_web_server_on_the_unix_socket_is_believed(self):
        path = f'{self.useFixture(fixtures.TempDir()).path}/proxy.sock'
        daemon = self.useFixture(self.new_daemon(unix_socket=path))
        daemon.kill()  # the socket it has left behind is no obstacle
        daemon.start()
        daemon.wait_ready()
        headers = {'additional_headers': self.FORWARDED, 'origin': self.ORIGIN}
        with unix_connect(path, f'ws://proxy{self.grant()}', **headers) as client:
            self.assertEqual(b'hello', test_proxy.echoed(client, b'hello'))
            # what the nearest says, not what the user may have written before it
            self.assertEqual(['198.51.100.7'], self.client_addresses())
            self.assertIn('client_address=198.51.100.7', daemon.log())

    def test_a_user_who_pretends_to_be_a_web_server_is_not_believed(self):
        target = self.grant()
        headers = {name: value for name, value in self.FORWARDED.items() if name != 'X-Forwarded-For'}
        self.assert_refused_with(403, target, origin=self.ORIGIN, additional_headers=headers)
        client = self.connected(target, additional_headers=self.FORWARDED)
        self.assertEqual(b'hello', test_proxy.echoed(client, b'hello'))
        self.assertEqual(['127.0.0.1'], self.client_addresses())


class _Stop:
    """SIGTERM."""

    def refuses(self):
        try:
            self.user().leave()
        except ConnectionRefusedError:
            return True
        return False

    def test_users_are_told_and_places_are_free_at_once(self):
        self.use_another(close_timeout=proxy_base.PATIENCE, connect_timeout=proxy_base.PATIENCE)
        hurried = self.add(Gatekeeper(held=True))
        polite, rude = self.opened(), self.opened(self.add(EchoGuest()))
        opening = self.user().send(handshake(self.grant(hurried, options={'internal_access_path': '/'})))
        self.wait_until(lambda: hurried.waiting, 'the connection to the guest')
        self.daemon.signal(signal.SIGTERM)
        self.assertEqual(1012, polite.close_code())
        self.assertTrue(self.refuses())
        polite.send(close_frame(1012)).leave()
        self.guests.host.call(hurried.tell(0, OK))
        answer = opening.answer()
        self.assertEqual(503, answer.status)
        self.assertIn('retry-after', answer.headers)
        opening.leave()
        self.wait_until(lambda: not self.count('console_session'), 'free places')
        self.assertTrue(psutil.pid_exists(self.worker))  # for the one who has not answered yet
        self.assertTrue(self.refuses())
        self.assertEqual(1012, rude.close_code())
        rude.leave()
        self.assertEqual(0, self.daemon.wait())

    def test_nobody_waits_for_users_who_have_nothing_open(self):
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

    def test_nobody_waits_for_the_bus(self):
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
        said = len(daemon.log())
        self.addOnException(lambda _: self.addDetail('proxy', text_content(daemon.log()[said:][-8000:])))

    def worker_of(self, name):
        """The process of a worker that has registered under this name."""
        number = name.rpartition(':')[2]
        [pid] = [pid for pid in self.daemon.worker_pids() if f'({number})' in self.daemon.process_title(pid)]
        return psutil.Process(pid)

    def names(self):
        """The names of the proxies that have sessions."""
        query = 'SELECT name FROM console_proxy JOIN console_session ON proxy_id = console_proxy.id'
        return {row[0] for row in self.rows(query)}

    def test_both_are_registered_and_serve_users(self):
        host, port = self.daemon.host, self.daemon.port
        both = {f'{host}:{port}:0', f'{host}:{port}:1'}
        rows = self.rows('SELECT name FROM console_proxy WHERE name LIKE :name', name=f'{host}:%')
        self.assertEqual(both, {row[0] for row in rows})
        for name in both:
            other = self.worker_of(name)
            other.suspend()  # so that it is not the one that takes the next user
            try:
                user = self.opened(target=self.grant(console_type='webmks'))
            finally:
                other.resume()
            self.assert_echo(user)
        self.assertEqual(both, self.names())
        self.assertEqual(2, self.metric('consoled_proxy_sessions'))

    def test_invariant_4_a_worker_that_was_killed_holds_nothing_when_its_lease_is_over(self):
        target = self.grant()
        user = self.opened(target=target)
        [name] = self.names()
        let_in = self.hold_registrations()
        self.worker_of(name).kill()
        self.assertIsNone(user.close_code())
        self.wait_until(lambda: not self.metric('consoled_proxy_sessions'), 'the end of its metrics')
        self.wait_until(lambda: not self.daemon.ready(), 'being not ready')
        told = set()
        again = self.wait_until(lambda: self.attempt(target, told), 'the place')  # from the other worker
        self.assertLessEqual(told, {409, 503})
        self.assert_echo(again)
        self.assertNotIn(name, self.names())
        self.assertFalse(self.daemon.ready())
        let_in.set()
        self.wait_until(self.daemon.ready, 'readiness')
        self.assert_echo(again)

    def hold_registrations(self):
        """No proxy can register until the event is set that is returned."""
        let_in, register = threading.Event(), proxies.register
        self.addCleanup(let_in.set)

        def held(*args):
            let_in.wait(proxy_base.PATIENCE)
            return register(*args)

        self.useFixture(fixtures.MonkeyPatch('consoled.db.proxies.register', held))
        return let_in

    def test_a_worker_that_was_killed_comes_back_to_free_places(self):
        target = self.grant()
        user = self.opened(target=target)
        [name] = self.names()
        self.worker_of(name).kill()
        self.assertIsNone(user.close_code())
        self.assert_echo(self.wait_until(lambda: self.attempt(target), 'the place'))
