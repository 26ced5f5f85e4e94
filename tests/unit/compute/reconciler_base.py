# SPDX-License-Identifier: Apache-2.0
"""A manager that records its calls, a driver that fails on demand, and a reconciler between them."""

import threading

import fixtures as fixtures_library
import testtools

from consoled.compute import reconciler, workqueue
from consoled.compute.drivers import demo
from consoled.compute.metrics import Metrics
from consoled.compute.port_conflicts import PortConflicts
from consoled.compute.reporter import Reporter
from consoled.rpc.replies import HostChanges
from consoled.testing import fixtures
from consoled.testing.fixtures import wait_until
from tests.functional import base

HOST = 'node-1'
ADDRESS = '192.0.2.20'


def build_guest(*ports, uuid=None, host=ADDRESS):
    """A guest with serial consoles at these ports."""
    consoles = [demo.Console('serial', port, 'https://consoles.example/') for port in ports]
    return demo.Guest(uuid or base.new_uuid(), 'guest', host, tuple(consoles))


class RecordingManager:
    """Records the reports it gets in ``reports``; raises ``failures`` first, one a call.

    A report is ('define', instance, ports), ('clean', instance), or ('host', instances, (instance, port) of
    all consoles, instances whose consoles are unknown).
    """

    def __init__(self):
        self.reports = []
        self.failures = []
        self.answers = threading.Event()  # calls wait until it is set
        self.answers.set()
        self.before = lambda method: None

    def _receive(self, method, *values):
        self.answers.wait()
        self.before(method)
        self.reports.append((method, *values))
        if self.failures:
            failure = self.failures.pop(0)
            if failure is not None:
                raise failure

    def define_consoles(self, context, instance_uuid, compute_host, consoles, wait=False):
        assert wait
        assert compute_host == HOST
        self._receive('define', instance_uuid, [console.port for console in consoles.objects])

    def clean_console_auths_for_instance(self, context, instance_uuid, compute_host=None, wait=False):
        assert wait
        assert compute_host == HOST
        self._receive('clean', instance_uuid)

    def define_host(self, context, compute_host, instance_uuids, consoles, unknown=()):
        assert compute_host == HOST
        endpoints = sorted((console.instance_uuid, console.port) for console in consoles.objects)
        self._receive('host', sorted(instance_uuids), endpoints, sorted(unknown))
        return HostChanges(retired=0, changed=0)


class FaultyDriver(demo.DemoDriver):
    """A driver that raises the errors in ``faults``: by instance UUID, or None for the list of instances."""

    def __init__(self):
        super().__init__(HOST, ())
        self.faults = {}
        self.inspected = []

    def list_instances(self):
        self._fail(None)
        return super().list_instances()

    def list_consoles(self, instance_uuid):
        self.inspected.append(instance_uuid)
        self._fail(instance_uuid)
        return super().list_consoles(instance_uuid)

    def _fail(self, key):
        if key in self.faults:
            raise self.faults[key]


class ReconcilerTestCase(testtools.TestCase):
    """A reconciler, not started, with short pauses.

    :cvar resync_delay: seconds before a state is reported once more
    :cvar options: options of the reconciler
    """

    resync_delay = 1000.0
    options: dict = {}

    def setUp(self):
        super().setUp()
        for name, value in (('_FIRST_PAUSE', 0.01), ('_LONGEST_PAUSE', 0.05)):
            self.useFixture(fixtures_library.MonkeyPatch(f'{workqueue.__name__}.{name}', value))
        self.logged = self.useFixture(fixtures_library.FakeLogger())
        self.conf = self.useFixture(fixtures.Conf(host=HOST, **self.options)).conf
        self.manager, self.driver, self.metrics = RecordingManager(), FaultyDriver(), Metrics('cell1')
        self.reporter = Reporter(self.conf, self.manager, self.metrics)
        self.port_conflicts = PortConflicts(self.driver)
        self.reconciler = reconciler.Reconciler(
            self.conf,
            self.driver,
            self.reporter,
            self.port_conflicts,
            self.metrics,
            resync_delay=self.resync_delay,
        )
        self.driver.watch(self.reconciler.enqueue)
        self.addCleanup(self.reconciler.stop, 5)
        self.addCleanup(self.manager.answers.set)

    def put(self, *ports, **how):
        """Start a guest, or change it."""
        guest = build_guest(*ports, **how)
        self.driver.put(guest)
        return guest

    def start(self):
        """Start the reconciler, and forget its first reports."""
        self.reconciler.start()
        self.assertTrue(self.reconciler.wait_attempted(30))
        self.settle()
        self.manager.reports.clear()

    def settle(self):
        """Wait until nothing is left to report."""
        wait_until(lambda: not len(self.reconciler._queue), what='an empty queue')
        mark = base.new_uuid()  # it is reported after all that was due before
        self.reconciler.enqueue(mark)
        wait_until(lambda: ('clean', mark) in self.manager.reports, what='the mark')
        self.manager.reports.remove(('clean', mark))

    def delayed(self):
        """Return the keys that are queued with a delay."""
        return set(self.reconciler._queue._delayed)

    def wait_reports(self, *expected):
        wait_until(
            lambda: list(expected) == self.manager.reports, what=f'{expected}, not {self.manager.reports}'
        )

    def last_ports(self):
        """The ports that were reported last, by instance."""
        return {report[1]: report[2] for report in self.manager.reports if report[0] == 'define'}
