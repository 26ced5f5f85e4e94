# SPDX-License-Identifier: Apache-2.0
"""The service fixtures, each against a real client."""

import os
import socket
import subprocess
import sys
import threading
import unittest
from unittest import mock

import amqp
import fixtures
import kombu
import psutil
import psycopg
import pymysql
import sqlalchemy
import testtools

from consoled.testing import service_process, services


def _processes(service):
    """Return all processes of a service, recognized by its directory."""
    found = []
    for process in psutil.process_iter(['cwd', 'cmdline', 'status']):
        texts = [process.info['cwd'] or '', *(process.info['cmdline'] or [])]
        if process.info['status'] != psutil.STATUS_ZOMBIE and any(
            str(service.directory) in text for text in texts
        ):
            found.append(process)
    return found


class ServiceCase(testtools.TestCase):
    """Base of the tests of one service; the subclasses name it and connect to it."""

    service_class = None

    def setUp(self):
        super().setUp()
        if self.service_class is None:
            self.skipTest('base class')
        self.service = self.useFixture(self.service_class())

    def assert_closed(self):
        with socket.socket() as client:
            client.settimeout(5)
            self.assertNotEqual(0, client.connect_ex((services.HOST, self.service.port)))

    def assert_gone(self, pid):
        self.assertIsNone(self.service.pid)
        self.assertFalse(psutil.pid_exists(pid))
        self.assertEqual([], _processes(self.service))
        self.assert_closed()


class DatabaseChecks:
    """The tests for both database servers."""

    def connect(self, url):
        raise NotImplementedError

    def rows(self, url, *statements):
        with self.connect(url) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
            connection.commit()
        return [tuple(row) for row in rows]

    def test_kill_start_restart_stop(self):
        url = self.service.new_database()
        port = self.service.port
        self.rows(url, 'CREATE TABLE t (a INT)', 'INSERT INTO t VALUES (7)')
        first = self.service.pid
        open_session = self.connect(url)
        self.service.kill()
        self.assert_gone(first)
        open_session.close()
        self.service.start()
        self.assertEqual(port, self.service.port)
        self.assertNotEqual(first, self.service.pid)
        self.assertEqual([(7,)], self.rows(url, 'SELECT a FROM t'))
        self.rows(url, 'INSERT INTO t VALUES (8)')
        self.service.restart()
        self.assertEqual([(7,), (8,)], self.rows(url, 'SELECT a FROM t ORDER BY a'))
        last = self.service.pid
        self.service.stop()
        self.assert_gone(last)

    def test_databases_are_independent_and_can_be_dropped(self):
        first, second = self.service.new_database(), self.service.new_database()
        self.rows(first, 'CREATE TABLE t (a INT)')
        self.rows(second, 'CREATE TABLE t (a INT)')
        left_open = self.connect(first)
        self.addCleanup(left_open.close)
        left_open.cursor().execute('SELECT * FROM t')
        self.service.drop_database(first)
        self.assertRaises(self.refused, self.connect, first)
        self.assertEqual([], self.rows(second, 'SELECT * FROM t'))

    def test_url_works_with_sqlalchemy_and_cpu_grows(self):
        before = self.service.cpu()
        engine = sqlalchemy.create_engine(self.service.new_database())
        self.addCleanup(engine.dispose)
        with engine.connect() as connection:
            while self.service.cpu() <= before:
                connection.execute(sqlalchemy.text('SELECT 1'))


class MariaDBTest(DatabaseChecks, ServiceCase):
    service_class = services.MariaDB
    refused = pymysql.OperationalError

    def connect(self, url):
        parts = sqlalchemy.make_url(url)
        return pymysql.connect(
            host=parts.host,
            port=parts.port,
            user=parts.username,
            password=parts.password,
            database=parts.database,
            read_timeout=5,
        )


class PostgreSQLTest(DatabaseChecks, ServiceCase):
    service_class = services.PostgreSQL
    refused = psycopg.OperationalError

    def connect(self, url):
        return psycopg.connect(url.replace('+psycopg', ''))


class RabbitMQTest(ServiceCase):
    service_class = services.RabbitMQ

    def connect(self, url):
        # The scheme is oslo.messaging's; kombu calls the same protocol amqp. Confirmations are needed,
        # because a broker that is killed may lose messages that it has not confirmed.
        return kombu.Connection(
            url.replace('rabbit', 'amqp', 1),
            connect_timeout=5,
            transport_options={'confirm_publish': True},
        )

    def put(self, url, text):
        with self.connect(url) as connection:
            queue = connection.SimpleQueue('durable')
            queue.put(text)  # kombu's defaults: a durable queue and persistent messages
            queue.close()

    def get(self, url):
        with self.connect(url) as connection:
            queue = connection.SimpleQueue('durable')
            message = queue.get(timeout=10)
            message.ack()
            queue.close()
            return message.payload

    def test_kill_start_stop(self):
        url, port = self.service.new_vhost(), self.service.port
        used = self.service.server_cpu()
        while self.service.server_cpu() <= used:  # counted in clock ticks
            self.put(url, 'first')
            self.assertEqual('first', self.get(url))
        self.put(url, 'second')
        first = self.service.pid
        self.assertIn('beam', psutil.Process(first).name())
        self.service.kill()
        self.assert_gone(first)
        # started from a thread that ends at once, which the broker has to survive
        thread = threading.Thread(target=self.service.start)
        thread.start()
        thread.join()
        self.assertEqual(port, self.service.port)
        self.assertEqual('second', self.get(url))
        self.assertRaises(services.ServiceError, self.service.delete_vhost, url + '-not')
        self.service.delete_vhost(url)
        self.assertRaises(amqp.NotAllowed, self.put, url, 'no such vhost')
        last = self.service.pid
        self.service.stop()
        self.assert_gone(last)

    def test_listens_on_loopback_only(self):
        listening = [
            c
            for process in _processes(self.service)
            for c in process.net_connections('inet')
            if c.status == psutil.CONN_LISTEN
        ]
        self.assertEqual({'127.0.0.1', '::1'}, {c.laddr.ip for c in listening} | {'::1'})
        ports = {c.laddr.port for c in listening}
        self.assertEqual(4, len(ports))  # AMQP, management, epmd, distribution
        self.assertLessEqual({self.service.port, self.service.management_port}, ports)


class MemcachedTest(ServiceCase):
    service_class = services.Memcached

    def ask(self, line):
        host, port = self.service.url.split(':')
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(line + b'\r\n')
            return client.recv(100)

    def test_kill_start_stop(self):
        url, first = self.service.url, self.service.pid
        self.assertEqual(b'VERSION 1.', self.ask(b'version')[:10])
        self.service.kill()
        self.assert_gone(first)
        self.service.start()
        self.assertEqual(url, self.service.url)
        self.assertEqual(b'VERSION 1.', self.ask(b'version')[:10])
        last = self.service.pid
        self.service.stop()
        self.assert_gone(last)

    def test_another_port_is_chosen_when_one_is_in_use(self):
        taken = self.service.port
        other = services.Memcached()
        free = services.free_port()
        with mock.patch.object(service_process, 'free_port', side_effect=[taken, free]):
            self.useFixture(other)
        self.assertEqual(free, other.port)

    def test_the_error_contains_the_log(self):
        broken = services.Memcached()
        with mock.patch.object(services.Memcached, '_commands', return_value=[['false-option']]):
            error = self.assertRaises(services.ServiceError, broken.setUp)
        self.assertIn('false-option', str(error))

    def test_nothing_outlives_a_process_that_was_killed(self):
        """Neither services nor daemons, with all their descendants."""
        script = (
            'import sys\nfrom consoled.testing import daemons, services\n'
            'bus = services.shared(services.RabbitMQ)\ndatabase = services.shared(services.MariaDB)\n'
            'url = bus.new_vhost()\n'
            'started = [daemons.ManagerProcess(url, database.new_database()), daemons.ProxyProcess(url)]\n'
            'for each in started:\n    each.setUp()\n'
            'print(bus.pid, database.pid, *(each.pid for each in started), flush=True)\nsys.stdin.read()\n'
        )
        directory = self.useFixture(fixtures.TempDir()).path
        with subprocess.Popen(
            [sys.executable, '-c', script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, 'TMPDIR': directory},
        ) as starter:
            started = [psutil.Process(int(pid)) for pid in starter.stdout.readline().split()]
            left = [each for parent in started for each in (parent, *parent.children(recursive=True))]
            starter.kill()
        self.assertTrue(len(left) > 10, left)
        _, alive = psutil.wait_procs(left, timeout=60)
        for each in alive:
            each.kill()
        self.assertEqual([], alive)

    def test_dies_with_the_process_that_started_it(self):
        script = (
            'import sys\nfrom consoled.testing import services\n'
            'print(services.shared(services.Memcached).pid, flush=True)\nsys.stdin.read()\n'
        )
        with subprocess.Popen(
            [sys.executable, '-c', script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as starter:
            pid = int(starter.stdout.readline())
            service = psutil.Process(pid)
            directory = service.cwd()
            starter.kill()
        self.addCleanup(os.rmdir, directory)
        self.addCleanup(os.unlink, f'{directory}/output.log')
        psutil.wait_procs([service], timeout=10)
        self.assertFalse(service.is_running())


class SharedTest(testtools.TestCase):
    def test_the_shared_instance_is_running(self):
        service = services.shared(services.Memcached)
        service.kill()
        self.assertIs(service, services.shared(services.Memcached))
        self.assertIsNotNone(service.pid)

    def test_a_forked_child_does_not_stop_it(self):
        service = services.shared(services.Memcached)
        pid = service.pid
        child = os.fork()
        if not child:
            try:
                service.kill()
                service.stop()
                services._shared._discard()
            finally:
                os._exit(0)
        self.assertEqual(0, os.waitpid(child, 0)[1])
        self.assertEqual(pid, service.pid)
        self.assertTrue(service.directory.exists())
        service._handshake()

    def test_stopped_when_the_process_exits(self):
        script = (
            'from consoled.testing import services\n'
            "s = services.shared(services.Memcached)\nprint(s.pid, s.directory, sep='\\n')\n"
        )
        pid, directory = subprocess.check_output([sys.executable, '-c', script]).split()
        self.assertFalse(psutil.pid_exists(int(pid)))
        self.assertFalse(os.path.exists(directory))


class FindProgramTest(testtools.TestCase):
    def test_missing(self):
        with mock.patch.dict(os.environ, CONSOLED_REQUIRE_SERVICES='1'):
            self.assertRaises(services.MissingService, services.find_program, 'no-such-thing')
        with mock.patch.dict(os.environ, CONSOLED_REQUIRE_SERVICES='0'):
            self.assertRaises(unittest.SkipTest, services.find_program, 'no-such-thing')

    def test_missing_service_skips_the_fixture(self):
        class Nothing(services.Memcached):
            programs = ('no-such-thing',)

        with mock.patch.dict(os.environ, CONSOLED_REQUIRE_SERVICES='0'):
            self.assertRaises(unittest.SkipTest, services.shared, Nothing)

    def test_free_port_is_outside_the_range_for_outgoing_connections(self):
        with open('/proc/sys/net/ipv4/ip_local_port_range') as source:
            lowest = int(source.read().split()[0])
        if lowest <= 10000:
            self.skipTest('the range for outgoing connections begins too low')
        self.assertLess(services.free_port(), lowest)
