# SPDX-License-Identifier: Apache-2.0
"""The permissions of doc/nova.md on Nova's bus are enough, and give nothing of Nova's own."""

import base64
import http.client
import json
import pathlib
import re
import uuid

import amqp
import oslo_messaging
import testtools

from consoled import objects
from consoled.context import RequestContext
from consoled.nova.compute import NovaComputeAPI
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.transport import get_transport
from consoled.testing import daemons, services
from consoled.testing.fixtures import Conf
from tests.functional import base

PAGE = pathlib.Path(__file__).resolve().parents[2] / 'doc/nova.md'
HOST = 'cmp1'


def permissions():
    """Return the three patterns of the page: configure, write, read."""
    text = PAGE.read_text()
    command = text[text.index('rabbitmqctl set_permissions') :]
    return re.findall(r"'(\^[^'\n]+)'", command)[:3]


class NovaCompute:
    """What nova-compute answers, as far as it matters here."""

    target = oslo_messaging.Target(version='5.0')

    def validate_console_port(self, context, instance, port, console_type):
        return port == '5900'


class PermissionsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.rabbit = services.shared(services.RabbitMQ)
        self.bus = self.rabbit.new_vhost()
        self.addCleanup(self.rabbit.delete_vhost, self.bus)
        self.vhost = self.bus.rpartition('/')[2]
        self.user = f'consoled-{uuid.uuid4().hex[:8]}'
        self.request('PUT', f'/users/{self.user}', {'password': 'x', 'tags': ''})
        self.addCleanup(self.request, 'DELETE', f'/users/{self.user}')
        configure, write, read = permissions()
        self.permit(configure, write, read)
        self.account = self.bus.replace('guest:guest@', f'{self.user}:x@')
        self.start_nova()

    def request(self, method, path, body=None):
        token = base64.b64encode(b'guest:guest').decode()
        connection = http.client.HTTPConnection('127.0.0.1', self.rabbit.management_port, timeout=30)
        self.addCleanup(connection.close)
        headers = {'Authorization': f'Basic {token}', 'Content-Type': 'application/json'}
        connection.request(method, f'/api{path}', json.dumps(body), headers)
        self.assertLess(connection.getresponse().status, 300)

    def permit(self, configure, write, read):
        body = {'configure': configure, 'write': write, 'read': read}
        self.request('PUT', f'/permissions/{self.vhost}/{self.user}', body)

    def transport(self, url):
        conf = self.useFixture(Conf(transport_url=url)).conf
        transport = get_transport(conf)
        self.addCleanup(transport.cleanup)
        return transport

    def start_nova(self):
        target = oslo_messaging.Target(exchange='nova', topic='compute', server=HOST)
        server = oslo_messaging.get_rpc_server(
            self.transport(self.bus), target, [NovaCompute()], executor='threading'
        )
        server.start()
        self.addCleanup(server.wait)
        self.addCleanup(server.stop)

    def ask(self):
        """Ask Nova's compute host with consoled's account."""
        api = NovaComputeAPI(self.transport(self.account), exchange='nova', topic='compute', version='5.0')
        console = objects.ConsoleConnection(
            instance_uuid=base.new_uuid(),
            console_type='novnc',
            host='192.0.2.1',
            port=5900,
            compute_host=HOST,
            access_url_base=None,
            options={},
        )
        return api.validate_console_port(RequestContext(), console, 1, 10)

    def test_nova_can_be_asked_and_a_cell_works(self):
        self.assertTrue(self.ask())
        self.useFixture(daemons.ManagerProcess(self.account, base.database_url(self, 'mariadb')))
        api = ConsoleAuthAPI(self.transport(self.account))
        context = RequestContext(user_id='u', project_id='p')
        granted = api.authorize(context, base.a_grant(base.new_uuid(), 5900))
        self.assertEqual(5900, api.validate(context, granted.token).port)
        proxy = self.useFixture(daemons.ProxyProcess(self.account))
        proxy.wait_ready()

    def test_nothing_of_nova_can_be_read_or_deleted(self):
        host, port = self.bus.partition('@')[2].split('/')[0].split(':')
        for what in (
            lambda channel: channel.basic_get('compute'),
            lambda channel: channel.queue_purge(f'compute.{HOST}'),
            lambda channel: channel.queue_delete('compute'),
            lambda channel: channel.queue_bind('reply_x', 'nova', 'compute'),
        ):
            with amqp.Connection(
                f'{host}:{port}', userid=self.user, password='x', virtual_host=self.vhost
            ) as connection:
                channel = connection.channel()
                channel.queue_declare('reply_x', auto_delete=True)
                self.assertRaises(amqp.exceptions.AccessRefused, what, channel)
