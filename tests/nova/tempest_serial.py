# SPDX-License-Identifier: Apache-2.0
"""A test of Tempest's kind, run by the Python of a virtualenv that has Tempest: not a module of these tests.

Tempest has no test of a serial console alone. This one does with its helpers what test_novnc.py does for a
screen.
"""

import os

from tempest.api.compute import base
from tempest.common import compute
from tempest.lib import decorators


class SerialConsoleTest(base.BaseV2ComputeTest, compute.NoVNCValidateMixin):
    create_default_network = True

    @classmethod
    def resource_setup(cls):
        super().resource_setup()
        cls.server = cls.create_test_server(wait_until='ACTIVE')

    @decorators.idempotent_id('1b3b5e0b-2f0c-4a43-8a39-4c8f4f1b3f0a')
    def test_serial(self):
        body = self.servers_client.get_remote_console(
            self.server['id'], console_type='serial', protocol='serial'
        )['remote_console']
        self.websocket = compute.create_websocket(body['url'])
        self.addCleanup(self.websocket.close)
        self.validate_websocket_upgrade()
        received = b''
        self.websocket.send_frame(b'\r')
        while os.environ['GREETING'].encode() not in received:
            data = self.websocket.receive_frame()
            self.assertTrue(data, f'the console ended after {received}')
            received += data
