# SPDX-License-Identifier: Apache-2.0
"""The examples of doc/api.md are run as they stand, against a manager and a compute agent over RabbitMQ."""

import os
import pathlib
import re
import subprocess
import sys
import unittest

import fixtures as fixtures_library

from consoled.compute.drivers import demo
from consoled.compute.endpoint import ComputeConsoleEndpoint
from consoled.context import RequestContext
from consoled.rpc import server as rpc_server
from consoled.rpc import versions
from tests import examples
from tests.functional import base

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'doc/api.md').read_text()
CONFIG_FILE = '/etc/my-service/my-service.conf'  # as in the examples
GUEST = '5c8a1c1e-7f9b-4a55-9d0c-2f4b5a0e1d11'
URL = 'https://console.example.org/novnc.html'
TIMEOUT = 60  # seconds


def part(heading):
    """Return the text from a heading up to the next of its level."""
    return TEXT.partition(f'\n## {heading}\n')[2].partition('\n## ')[0]


class ExamplesTest(base.CellTestCase):
    engine = 'sqlite'

    def setUp(self):
        super().setUp()
        guest = demo.Guest(GUEST, 'guest', base.ADDRESS, (demo.Console('novnc', 5900, URL),))
        endpoint = ComputeConsoleEndpoint(demo.DemoDriver(base.COMPUTE_HOST, (guest,)), self.api)
        server = rpc_server.get_server(
            self.cell.transport, versions.COMPUTE_TOPIC, base.COMPUTE_HOST, [endpoint]
        )
        server.start()
        self.addCleanup(rpc_server.drain, server)
        self.config = pathlib.Path(self.useFixture(fixtures_library.TempDir()).join('my-service.conf'))
        # a service has an exchange and options of its own
        self.config.write_text(f'[DEFAULT]\ntransport_url = {self.bus}\ncontrol_exchange = my-service\n')

    def run_python(self, *blocks):
        """Run examples in one process; return its exit code, and what it printed."""
        done = subprocess.run(
            [sys.executable, '-c', '\n'.join(blocks).replace(CONFIG_FILE, str(self.config))],
            cwd=ROOT,
            env={**os.environ, 'PYTHONWARNINGS': 'ignore'},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        return done.returncode, done.stdout, done.stderr

    def test_with_the_clients(self):
        code, out, err = self.run_python(*examples.fenced(part('With the clients'), 'python'))
        self.assertEqual((0, ''), (code, err))
        url, sessions = out.splitlines()
        self.assertTrue(url.startswith(URL), url)
        self.assertEqual('0 sessions', sessions)
        self.assertEqual(0, self.count('console_auth_token'))  # the example has revoked it

    def test_without_the_clients(self):
        blocks = examples.fenced(part('Without the clients'), 'python')
        self.assertNotIn('consoled', re.findall(r'(?m)^(?:from|import) (\w+)', '\n'.join(blocks)))
        code, out, err = self.run_python(*blocks)
        self.assertEqual((0, ''), (code, err))
        self.assertTrue(out.startswith(URL), out)
        token = re.search(r'token%3D([\w-]+)', out)[1]
        grant = self.api.validate(RequestContext(), token)
        self.assertEqual(('alice', 'demo'), (grant.user_id, grant.project_id))

    def test_errors_are_shown_as_the_page_says(self):
        other = base.new_uuid()
        for heading, error in (
            ('With the clients', 'instance_not_found: '),
            ('Without the clients', 'InstanceNotFound: '),
        ):
            blocks = [block.replace(GUEST, other) for block in examples.fenced(part(heading), 'python')]
            code, out, err = self.run_python(*blocks)
            self.assertEqual((1, ''), (code, out), heading)
            self.assertTrue(err.startswith(f'{error}Instance {other} has no consoles here.'), err)

    def test_in_your_tests(self):
        (block,) = examples.fenced(part('In your tests'), 'python')
        namespace = {'__name__': __name__}
        exec(compile(block, 'doc/api.md', 'exec'), namespace)
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(namespace['OurConsolesTest'])
        result = unittest.TestResult()
        suite.run(result)
        self.assertEqual(([], [], 1), (result.errors, result.failures, result.testsRun))
