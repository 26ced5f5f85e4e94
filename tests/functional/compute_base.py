# SPDX-License-Identifier: Apache-2.0
"""What the tests of compute agents share: guests that a test changes, an agent in this process."""

import dataclasses
import json
import os
import pathlib

import fixtures as fixtures_library

from consoled.compute import service
from consoled.compute.drivers import demo
from consoled.rpc.client import ComputeConsoleAPI
from consoled.testing import fixtures
from tests.functional import base

PAGE = 'https://consoles.example/'


def a_guest(*ports, uuid=None, host=base.ADDRESS, console_type='serial', running=True):
    consoles = tuple(demo.Console(console_type, port, PAGE) for port in ports)
    return demo.Guest(uuid or base.new_uuid(), 'guest', host, consoles, running)


def stopped(guest):
    return dataclasses.replace(guest, running=False)


class Agent(fixtures_library.Fixture):
    """An agent in this process.

    :param options: as for ``fixtures.Conf``
    """

    def __init__(self, transport, driver, **options):
        super().__init__()
        self._transport = transport
        self.driver = driver
        self._options = {'host': base.COMPUTE_HOST, 'compute__hypervisor_timeout': 10, **options}

    def _setUp(self):  # noqa: N802 - named by the library
        self.config = self.useFixture(fixtures.Conf(**self._options))
        self.agent = service.Agent(self.config.conf, self._transport, self.driver)
        self.agent.start()
        self._runs = True
        self.addCleanup(self.end)
        self.agent.wait_attempted(30)

    def end(self):
        if self._runs:
            self._runs = False
            self.agent.stop(5)


class GuestsFile(fixtures_library.Fixture):
    """The file of guests that a daemon with the driver demo reads; without it, its hypervisor is away."""

    def _setUp(self):  # noqa: N802 - named by the library
        self.path = pathlib.Path(self.useFixture(fixtures_library.TempDir()).join('guests.json'))
        self.guests = {}
        self.write()

    def put(self, guest):
        self.guests[guest.uuid] = guest
        self.write()
        return guest

    def remove(self, guest):
        del self.guests[guest.uuid]
        self.write()

    def write(self):
        new = self.path.with_suffix('.new')
        new.write_text(json.dumps([dataclasses.asdict(guest) for guest in self.guests.values()]))
        os.replace(new, self.path)


class AgentTestCase(base.CellTestCase):
    """A cell as for ``CellTestCase``, an agent in this process, and guests."""

    agent_options: dict = {}

    def setUp(self):
        super().setUp()
        self.driver = demo.DemoDriver(base.COMPUTE_HOST, ())
        self.agent = self.useFixture(Agent(self.cell.transport, self.driver, **self.agent_options))
        self.compute = ComputeConsoleAPI(self.cell.transport)

    def put(self, *ports, **how):
        """Start a guest, and wait until the managers know it."""
        guest = a_guest(*ports, **how)
        self.driver.put(guest)
        fixtures.wait_until(lambda: self.ports(guest.uuid) == sorted(ports), what='the definition')
        return guest

    def get(self, guest, console_type='serial'):
        return self.compute.get_console(self.context, base.COMPUTE_HOST, guest.uuid, console_type)

    def instances(self):
        return {row[0] for row in self.rows('SELECT uuid FROM instances')}
