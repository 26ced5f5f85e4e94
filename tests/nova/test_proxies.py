# SPDX-License-Identifier: Apache-2.0
"""A real guest opened with tokens of Nova's own code, through consoled and through a stock nova-novncproxy.

The differences are the table in doc/nova.md, "Differences to Nova's proxies".
"""

import contextlib
import json

import testtools

from consoled.testing import daemons, services
from consoled.testing.fixtures import wait_until
from tests.e2e.qemu import Qemu
from tests.functional import raw_user
from tests.nova import base, stock

LOOPBACK = '127.0.0.1'
SCREEN, NOTHING = (101, 'RFB'), (101, None)

# Everything that the libraries can log, messages and SQL included. amqp logs heartbeats only.
LOG_ALL = ','.join(
    f'{name}=TRACE'
    for name in ('asyncio', 'kombu', 'oslo.messaging', 'oslo_messaging', 'oslo_db', 'sqlalchemy')
)


def opened(port, token):
    """Open a websocket as a user does.

    :returns: the status of the response, and the code of the refusal; after a 101 what the guest says first,
        or None if the proxy ends the session, or waits for long
    """
    with raw_user.User(port) as user:
        headers = {'Accept': 'application/json', 'Sec-WebSocket-Protocol': 'binary'}
        user.send(raw_user.handshake(f'/websockify?token={token}', **headers))
        answer = user.answer()
        if answer.status != 101:
            return answer.status, json.loads(answer.body)['code']
        with contextlib.suppress(EOFError, OSError):
            opcode, payload = user.frame()
            if opcode == raw_user.BINARY:
                return answer.status, payload[:3].decode('latin-1')
        return answer.status, None


class Cell(base.NovaTestCase):
    """A Nova, a manager and a proxy of consoled, and a stock nova-novncproxy in front of the same guest."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        logs = {'DEFAULT': {'debug': True, 'default_log_levels': LOG_ALL}}
        cls.manager = cls.share(
            daemons.ManagerProcess(
                services.shared(services.RabbitMQ).new_vhost(),
                services.shared(services.MariaDB).new_database(),
                {
                    **logs,
                    'nova': cls.options_of_nova(),
                    'manager': base.MANAGER,
                },
            )
        )
        cls.proxy = cls.share(
            daemons.ProxyProcess(
                cls.manager.transport_url,
                {**logs, 'proxy': {'authorize_timeout': 2 * base.CHECK_TIMEOUT}},
            )
        )
        cls.proxy.wait_ready()
        cls.serial = services.free_port()
        cls.qemu = cls.share(
            Qemu(
                *('-vnc', '127.0.0.1:{vnc}', '-device', 'isa-serial,chardev=port'),
                *('-chardev', f'socket,id=port,host=127.0.0.1,port={cls.serial},server=on,wait=off'),
            )
        )
        cls.tokens = []

    @classmethod
    def options_of_nova(cls):
        return {'connection': cls.nova.reader, 'transport_url': cls.nova.bus}

    def setUp(self):
        super().setUp()
        self.add_logs(manager=self.manager, proxy=self.proxy)
        self.guest = self.nova.add_guest(vnc=self.qemu.port, serial=self.serial, address=LOOPBACK)

    def authorize(self, console_type='novnc', port=None):
        token = self.nova.authorize(self.guest, console_type, port or self.qemu.port, host=LOOPBACK)
        self.tokens.append(token)
        return token

    def assert_opens(self, expected, token):
        self.assertEqual(expected, opened(self.proxy.port, token))

    def assert_secret(self):
        for daemon in (self.manager, self.proxy):
            log = daemon.log()
            self.assertNotEqual('', log)
            self.assertEqual([], [token for token in self.tokens if token in log])


class CasesTest(Cell):
    @classmethod
    def setUpClass(cls):
        cls.mariadb = cls.share(services.MariaDB())  # of its own, which a test stops
        super().setUpClass()
        cls.stock = cls.share(stock.NovncProxy(cls.nova))

    def compare(self, consoled, nova, token):
        """Open a token through both proxies."""
        self.assert_opens(consoled, token)
        self.assertEqual(nova, opened(self.stock.port, token))
        self.assert_secret()

    def test_the_screen(self):
        self.compare(SCREEN, SCREEN, self.authorize())

    def test_the_serial_port(self):
        token = self.authorize('serial', self.serial)
        with raw_user.User(self.proxy.port) as user:
            user.send(raw_user.handshake(f'/?token={token}'))
            self.assertEqual(101, user.answer().status)
            wait_until(lambda: self.qemu.accepted(self.serial), what='the connection to the guest')
        self.assert_secret()

    def test_a_port_that_is_not_the_guests(self):
        self.compare((404, 'console_gone'), NOTHING, self.authorize(port=self.qemu.port + 1))

    def test_a_token_that_has_expired(self):
        token = self.authorize()
        self.nova.execute('UPDATE console_auth_tokens SET expires = UNIX_TIMESTAMP()')
        self.compare((401, 'invalid_token'), NOTHING, token)

    def test_a_token_that_nova_has_deleted(self):
        token = self.authorize()
        self.assert_opens(SCREEN, token)
        self.nova.call('clean', self.guest)
        self.compare((401, 'invalid_token'), NOTHING, token)

    def test_a_guest_that_is_gone(self):
        token = self.authorize()
        self.nova.stop_guest(self.guest)
        self.compare((404, 'console_gone'), NOTHING, token)

    def test_an_instance_that_is_deleted(self):
        token = self.authorize()
        self.nova.call('destroy_instance', self.guest)
        self.compare((401, 'invalid_token'), NOTHING, token)

    def test_an_instance_that_is_shelved(self):
        token = self.authorize()
        self.assert_opens(SCREEN, token)
        self.nova.call('update_instance', self.guest, host=None, vm_state='shelved_offloaded')
        self.compare((401, 'invalid_token'), NOTHING, token)

    def test_an_instance_that_has_moved(self):
        token = self.authorize()
        self.assert_opens(SCREEN, token)
        self.nova.call('update_instance', self.guest, host='cmp2')
        self.compare((401, 'invalid_token'), NOTHING, token)

    def test_a_token_from_before_the_last_launch(self):
        """A guest that was rebuilt, resized, evacuated or unshelved: the port may be another guest's now."""
        token = self.authorize()
        self.nova.call('update_instance', self.guest, launched_in=2)
        self.compare((401, 'invalid_token'), SCREEN, token)

    def test_a_compute_host_that_is_silent(self):
        token = self.authorize()
        with self.nova.compute.stopped():
            self.compare((503, 'compute_unreachable'), NOTHING, token)
        wait_until(lambda: opened(self.proxy.port, token) == SCREEN, what='the host to be asked again')

    def test_the_database_of_nova_is_down(self):
        token = self.authorize()
        self.assert_opens(SCREEN, token)
        self.mariadb.stop()
        try:
            self.compare((503, 'source_unavailable'), NOTHING, token)
            self.assert_opens((503, 'source_unavailable'), self.tokens[0])
        finally:
            self.mariadb.start()
        wait_until(lambda: opened(self.proxy.port, token) == SCREEN, what='the database')
        self.assert_secret()


class QuorumTest(Cell):
    """The queues of Nova are quorum queues (before 25 there are none), and consoled knows."""

    rabbit = 'rabbit_quorum_queue = true'

    @classmethod
    def options_of_nova(cls):
        return {**super().options_of_nova(), 'transport_url': f'{cls.nova.bus}?rabbit_quorum_queue=true'}

    def test_a_screen(self):
        self.assert_opens(SCREEN, self.authorize())
        self.assert_secret()


@testtools.skipIf(base.MAJOR < 25, 'the oslo.messaging of this release has no quorum queues')
class QuorumUnknownTest(Cell):
    """The queues of Nova are quorum queues, and consoled has not been told so."""

    rabbit = 'rabbit_quorum_queue = true'

    def test_a_screen(self):
        self.assert_opens((503, 'compute_unreachable'), self.authorize())
        self.assertIn('PRECONDITION_FAILED', self.manager.log())
        self.assert_secret()


class QuorumMistakenTest(QuorumTest):
    """The queues of Nova are classic queues, and consoled has been told otherwise: it opens all the same."""

    rabbit = ''
